"""The daemon is told to end while disks are attached."""

from . import daemon, filesystem, resources, target
from .command import attempt, check, start, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

BOUND = 40
#: LUNs and initiator_ext of many disks.
MANY = range(1400, 1440)
EXT = 0x300


@case(limit=150, smoke=True)
def idle_disks(bench):
    """SIGTERM: what was written is written back, the disks go, the daemon ends."""
    disks = bench.attach(None, "--lun", "0,1,5")
    data = pattern("shutdown", 8 * CHUNK)
    with open(disks[1].path, "r+b", buffering=0) as file:
        file.write(data)
        bench.daemon.end(BOUND)
    bench.forget_daemon()
    check(not any(disk.traces() for disk in disks.values()), "devices are left after the daemon's end")
    resources.check_nothing_left()
    (disk,) = bench.attach(None, "--lun", "1").values()
    check_same("what was written before the daemon's end", disk.read(len(data)), data)
    bench.detach(disk)


@case(limit=150)
def while_attaching(bench):
    """SIGTERM in the middle of an attach of many disks: it comes to an end, and nothing is left."""
    target.make_many(MANY)
    target.allow(EXT, MANY)
    line = target.line(initiator_ext=f"{EXT:x}")
    assert bench.daemon
    attach = bench.watch(start(daemon.PROGRAM, "attach", line, "--lun", f"{MANY[0]}-{MANY[-1]}"))
    wait_until("some disks are there", lambda: len(daemon.answer("list")["devices"]) >= 2, 30)
    check(attach.poll() is None, "the attach has ended already")
    bench.daemon.end(BOUND)
    bench.forget_daemon()
    wait_until("the command ends", lambda: attach.poll() is not None, 10)
    resources.check_nothing_left()


@case(limit=200)
def mounted_disk(bench):
    """SIGTERM with a mounted file system and dirty data: bounded, and nothing is lost."""
    (disk,) = bench.attach(None, "--lun", "5").values()
    filesystem.make(disk, "ext4")
    filesystem.mount(disk)
    data = pattern("mounted", 16 * CHUNK)
    try:
        (filesystem.MOUNT / "file").write_bytes(data)
        bench.daemon.end(BOUND)
    finally:
        attempt("umount", filesystem.MOUNT, limit=60)
    bench.forget_daemon()
    resources.check_nothing_left()
    (disk,) = bench.attach(None, "--lun", "5").values()
    with filesystem.mounted(disk) as place:
        check_same("what was written before the daemon's end", (place / "file").read_bytes(), data)
    bench.detach(disk)
