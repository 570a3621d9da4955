"""Targets named by IPv6 addresses, and a source address of choice."""

from . import daemon, target
from .command import check
from .registry import case


def works(bench, **changes):
    (disk,) = bench.attach(target.line(**changes), "--lun", "0").values()
    disk.check_works()
    address = daemon.answer("list")["sessions"][0]["address"]
    bench.detach(disk)
    return address


@case(smoke=True)
def destination(bench):
    """dest=[IPv6]:port"""
    wanted = target.environment()["DEST6"]
    address = works(bench, dest=wanted)
    check(address == wanted, f"list shows {address}, not {wanted}")


@case()
def source(bench):
    """src= by IPv6 and IPv4"""
    fabric = target.environment("fabric")
    works(bench, dest=target.environment()["DEST6"], src=f"[{fabric['ADDR6']}]")
    works(bench, src=fabric["ADDR4"])
