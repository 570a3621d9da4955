"""File systems on the disks: made, mounted, filled and checked."""

import contextlib
import os
import pathlib

from .command import attempt, check, run

MOUNT = pathlib.Path("/mnt")
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
LIMIT = 120


def make(disk, kind):
    run(*MAKE[kind], disk.path, limit=LIMIT)


def mount(disk):
    run("mount", disk.path, MOUNT, limit=LIMIT)


def unmount():
    run("umount", MOUNT, limit=LIMIT)


@contextlib.contextmanager
def mounted(disk):
    mount(disk)
    try:
        yield MOUNT
    except BaseException:
        attempt("umount", "-l", MOUNT, limit=10)
        raise
    unmount()


def fill(place, source, most):
    """Copies real files, at most so many bytes, and returns their checksums."""
    copied = 0
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            file = pathlib.Path(folder, name)
            if not file.is_file() or file.is_symlink():
                continue
            copied += file.stat().st_size
            if copied > most:
                run("sync", "-f", place, limit=LIMIT)
                return checksums(place)
            there = place / file.relative_to("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(file.read_bytes())
    run("sync", "-f", place, limit=LIMIT)
    return checksums(place)


def checksums(place):
    command = f"cd {place} && find . -type f -print0 | sort -z | xargs -0 -r sha256sum"
    return run("sh", "-c", command, limit=LIMIT).out


def check_intact(place, wanted):
    seen = checksums(place)
    if seen != wanted:
        missing = sorted(set(wanted.splitlines()) - set(seen.splitlines()))
        check(False, f"{len(missing)} of {len(wanted.splitlines())} files are not as written, such as {missing[:5]}")
