"""detach --force of a disk in use on a healthy target loses nothing that was written."""

import os

from . import daemon, filesystem
from .command import attempt, check, equal, run
from .disk import CHUNK, check_same, pattern
from .registry import case

BOUND = 30
FULL_BOUND = 240


@case(limit=150, full_limit=700)
def mounted_and_dirty(bench):
    """A mounted file system with dirty data is there, whole, after attach and mount."""
    megabytes = 200 if bench.full else 16
    (disk,) = bench.attach(None, "--lun", "5").values()
    filesystem.make(disk, "ext4")
    filesystem.mount(disk)
    data = {f"file{number}": pattern(number, megabytes * CHUNK // 4) for number in range(4)}
    try:
        for name, content in data.items():
            (filesystem.MOUNT / name).write_bytes(content)
        outcome = daemon.cli("detach", disk.path)
        equal("exit code of detach without --force", outcome.code, 5)
        detached = run("ublk-srp", "detach", "--force", disk.path, limit=FULL_BOUND if bench.full else BOUND)
        check("not flushed" not in detached.err, detached.told())
        check(not disk.traces(), f"still there after detach --force: {disk.traces()}")
    finally:
        attempt("umount", filesystem.MOUNT, limit=60)
    (disk,) = bench.attach(None, "--lun", "5").values()
    with filesystem.mounted(disk) as place:
        for name, content in data.items():
            check_same(f"{name} after detach --force", (place / name).read_bytes(), content)
    bench.detach(disk)


@case()
def held_open(bench):
    """A disk that a process holds open and has written to: its data arrives, the process gets errors."""
    (disk,) = bench.attach(None, "--lun", "1").values()
    data = pattern("held", 4 * CHUNK)
    handle = os.open(disk.path, os.O_RDWR)
    try:
        os.pwrite(handle, data, 0)
        run("ublk-srp", "detach", "--force", disk.path, limit=BOUND)
        check(not disk.traces(), f"still there after detach --force: {disk.traces()}")
        try:
            # The disk has no size any more: its end, or an error.
            equal("bytes read from a detached disk", os.preadv(handle, [bytearray(4096)], 64 * CHUNK), 0)
        except OSError:
            pass
    finally:
        os.close(handle)
    (disk,) = bench.attach(None, "--lun", "1").values()
    check_same("what was written before detach --force", disk.read(4 * CHUNK), data)
    bench.detach(disk)
