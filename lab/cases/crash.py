"""The daemon is killed."""

import time

from . import fio, resources
from .command import check, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

GONE_WITHIN = 30


@case(limit=150, smoke=True)
def killed_and_started_again(bench):
    """Its disks go, also from under load; nothing is left behind; a new daemon attaches them with their data."""
    disks = bench.attach(None, "--lun", "0,1,2")
    data = pattern("crash", 4 * CHUNK)
    disks[1].write(data)
    load = fio.Running(disks[2])
    bench.watch(load.process)
    time.sleep(1)
    load.check_at_work()
    bench.daemon.kill()
    bench.forget_daemon()
    check(load.wait(GONE_WITHIN) != 0, f"fio does not notice the daemon's end\n{load.told()}")
    wait_until("the devices are gone", lambda: not resources.ublk_devices(), GONE_WITHIN)
    resources.check_nothing_left()
    resources.check_released()
    disks = bench.attach(None, "--lun", "0,1,2")
    check_same("what was written before the kill", disks[1].read(len(data)), data)
    disks[2].check_works()
    bench.detach()
