"""A daemon that is killed, or told to end, with disks attached."""

from . import daemon, filesystem, resources
from .command import attempt, check, equal, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case


@case(limit=120, smoke=True)
def killed(bench):
    """kill -9: its disks go away, and a new daemon attaches them again with what was written."""
    disks = bench.attach(None, "--lun", "1,2")
    for lun, disk in disks.items():
        disk.write(pattern(lun, 2 * CHUNK))
    bench.daemon.kill()
    bench.forget_daemon()
    check_gone(disks)
    disks = bench.attach(None, "--lun", "1,2")
    for lun, disk in disks.items():
        check_same(f"LUN {lun} after a kill", disk.read(2 * CHUNK), pattern(lun, 2 * CHUNK))
    bench.detach()


def check_gone(disks):
    """The block devices of a dead daemon are gone; the numbers are free once its successor has started."""
    gone = lambda: not any("ublkb" in trace for disk in disks.values() for trace in disk.traces())  # noqa: E731
    wait_until("the killed daemon's disks are gone", gone, 30)


@case(limit=120)
def told_to_end(bench):
    """SIGTERM: dirty data of a mounted file system arrives, nothing stays behind."""
    (disk,) = bench.attach(None, "--lun", "1").values()
    filesystem.make(disk, "ext4")
    filesystem.mount(disk)
    data = pattern("told", 4 * CHUNK)
    try:
        (filesystem.MOUNT / "file").write_bytes(data)
        bench.daemon.end(60)
        bench.forget_daemon()
    finally:
        attempt("umount", filesystem.MOUNT, limit=60)
    resources.check_nothing_left()
    (disk,) = bench.attach(None, "--lun", "1").values()
    with filesystem.mounted(disk) as place:
        check_same("what was written before the end", (place / "file").read_bytes(), data)
    bench.detach(disk)


@case(limit=60)
def second_daemon(bench):
    """A second daemon is refused and does no harm to the first."""
    bench.attach(None, "--lun", "0")
    outcome = daemon.cli("daemon", limit=20)
    print(outcome.told())
    equal("exit code", outcome.code, 5)
    check("another daemon" in outcome.err, outcome.told())
    equal("devices", len(daemon.answer("list")["devices"]), 1)
    bench.detach()
