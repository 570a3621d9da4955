"""Attaching and detaching over and over leaves nothing behind and needs nothing more."""

import time

from . import resources
from .command import check, equal
from .registry import case

WARM_UP = 2
RESIDENT_SLACK_KIB = 8192


def objects():
    return {kind: len(resources.rdma(kind)) for kind in ("qp", "mr", "cm_id", "cq", "pd")}


@case(limit=180, full_limit=1800)
def attach_and_detach(bench):
    """File descriptors, threads, memory, RDMA objects and devices stay the same."""
    figures = []
    for round_number in range(WARM_UP + (100 if bench.full else 5)):
        disks = bench.attach(None, "--lun", "0,1,5")
        disks[0].check_works()
        held = objects()
        bench.detach()
        resources.check_released()
        released = {kind: len(resources.rdma(kind)) for kind in ("cq", "pd", "ctx")}
        if round_number >= WARM_UP - 1:
            figures.append((bench.daemon.open_files(), held, released, bench.daemon.resident_kib()))
    print("first:", figures[0], "last:", figures[-1])
    equal("open files after the last round", figures[-1][0], figures[0][0])
    equal("RDMA objects while attached", figures[-1][1], figures[0][1])
    equal("RDMA objects while detached", figures[-1][2], figures[0][2])
    growth = figures[-1][3] - figures[0][3]
    check(growth <= RESIDENT_SLACK_KIB, f"the daemon grew by {growth} KiB: {[figure[3] for figure in figures]}")
    # Threads for blocking work go away by themselves after ten idle seconds.
    time.sleep(11)
    idle = sorted(bench.daemon.threads())
    bench.attach(None, "--lun", "0,1,5")
    # What a thread made that has ended since is shown no more.
    equal("RDMA objects while attached, later", objects(), figures[0][1])
    bench.detach()
    time.sleep(11)
    equal("threads when idle", sorted(bench.daemon.threads()), idle)
