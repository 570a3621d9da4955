"""The daemon is killed."""

import time

from . import fio
from .command import check, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

GONE_WITHIN = 30


@case(limit=150, smoke=True)
def killed(bench):
    """kill -9, under load: its disks go, users get errors, and a new daemon attaches them again with their data."""
    disks = bench.attach(None, "--lun", "0,1,2")
    for lun in (1, 2):
        disks[lun].write(pattern(lun, 2 * CHUNK))
    load = fio.Running(disks[0])
    bench.watch(load.process)
    time.sleep(1)
    load.check_at_work()
    bench.daemon.kill()
    bench.forget_daemon()
    check(load.wait(GONE_WITHIN) != 0, f"fio does not notice the daemon's end\n{load.told()}")
    check_gone(disks)
    disks = bench.attach(None, "--lun", "0,1,2")
    for lun in (1, 2):
        check_same(f"LUN {lun} after a kill", disks[lun].read(2 * CHUNK), pattern(lun, 2 * CHUNK))
    disks[0].check_works()
    bench.detach()


def check_gone(disks):
    """The block devices of a dead daemon are gone; the numbers are free once its successor has started."""

    def gone():
        return not any("ublkb" in trace for disk in disks.values() for trace in disk.traces())

    wait_until("the killed daemon's disks are gone", gone, GONE_WITHIN)
