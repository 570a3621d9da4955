"""Data in memory windows, one for each command."""

from . import daemon, fio, resources, target
from .command import check, equal, run, wait_until
from .registry import case


@case(smoke=True)
def windows(bench):
    """Small, large and mixed requests come back as written; nothing is left of the windows."""
    bench.attach(None, "--lun", "0")
    bench.detach()
    domains = len(resources.rdma("pd"))
    disks = bench.attach(target.line(exposure="window"), "--lun", "0,2,3")
    check("exposure=window" in daemon.answer("list")["sessions"][0]["target"], "the choice is shown")
    size = (256 if bench.full else 16) << 20
    for kind, disk in zip(fio.KINDS, disks.values(), strict=True):
        fio.verify(disk, kind, size, limit=90)
    bench.detach()
    resources.check_released()
    # One with windows in it would stay.
    equal("protection domains", len(resources.rdma("pd")), domains)


@case()
def through_a_lost_session(bench):
    """The target goes away under load: what was under way ends, and nothing is left."""
    disk = bench.attach(target.line(exposure="window"), "--lun", "0")[0]
    load = fio.Running(disk)
    bench.watch(load.process)
    load.check_at_work()
    target.script("target-disable")
    try:
        check(load.wait(60) != 0 or load.failed(), load.told())
        wait_until("the session is lost", lambda: daemon.answer("list")["sessions"][0]["state"] == "lost", 30)
    finally:
        target.script("target-enable")
    bench.detach(force=True)
    resources.check_released()


@case()
def what_a_window_lets_through(bench):
    """On the software HCA: the direction, the queue pair and the time of an access are checked. Its end is not."""
    told = run("/opt/ublk-srp/examples/windows", target.environment("fabric")["ADDR4"]).out
    print(told)
