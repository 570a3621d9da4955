"""The native way to a target, by GID and service id (AF_IB): as far as a port leads that has no InfiniBand behind it."""

from . import daemon, target
from .command import check, equal, run
from .registry import case

PROGRAM = "/opt/ublk-srp/examples/native_way"
NO_DEVICE = "refused: No such device (os error 19)"


def way(source, destination, pkey="ffff"):
    """What each step of the way says."""
    out = run(PROGRAM, source, destination, pkey, target.environment()["SERVICE_ID"]).out
    print(source, destination, pkey, out, sep="\n")
    return dict(line.split(": ", 1) for line in out.splitlines())


@case()
def as_far_as_it_goes(bench):
    """Our addresses are taken: the port is found by its GID and P_Key. A soft-RoCE port then has no route for them."""
    gid = target.environment("fabric")["GID"]
    for source in ("-", "::"):
        steps = way(source, gid)
        equal(f"address from {source}", steps["address"], f"resolved, by rxe0/1, from {gid}")
        equal(f"route from {source}", steps["route"], NO_DEVICE)
    # Bound to its GID, as a login is, a source is of an InfiniBand port only.
    equal("address from the port's GID", way(gid, gid), {"address": NO_DEVICE})
    equal("address in a partition the port is not in", way("-", gid, "8001"), {"address": NO_DEVICE})
    equal("address in no subnet of the port", way("-", "fec0::1"), {"address": NO_DEVICE})


@case()
def refused_in_words(bench):
    """A line by GID on a host without an InfiniBand port says so, and what to use instead."""
    assert bench.daemon
    env = target.environment()
    line = target.line(dest=None, dgid=env["DGID"], pkey=env["PKEY"], service_id=env["SERVICE_ID"])
    outcome = daemon.cli("attach", line)
    check(outcome.code == 4 and "no InfiniBand port" in outcome.err and "dest=" in outcome.err, outcome.told())
