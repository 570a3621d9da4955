"""File systems keep files over a remount and over detach and attach."""

from . import filesystem
from .registry import case

MIB = 1 << 20


def keeps_files(bench, kind, lun):
    (disk,) = bench.attach(None, "--lun", str(lun)).values()
    filesystem.make(disk, kind)
    with filesystem.mounted(disk) as place:
        written = filesystem.fill(place, "/usr/lib", (64 if bench.full else 8) * MIB)
    with filesystem.mounted(disk) as place:
        filesystem.check_intact(place, written)
    bench.detach(disk)
    (disk,) = bench.attach(None, "--lun", str(lun)).values()
    with filesystem.mounted(disk) as place:
        filesystem.check_intact(place, written)
    bench.detach(disk)


@case(limit=120, full_limit=400, smoke=True)
def ext4(bench):
    """ext4 on the file-backed LUN with a write cache."""
    keeps_files(bench, "ext4", 1)


@case(limit=120, full_limit=400)
def xfs(bench):
    """xfs on the thin LUN."""
    keeps_files(bench, "xfs", 5)


@case(limit=120, full_limit=400)
def ext4_on_4096_byte_blocks(bench):
    """ext4 on 4096-byte blocks."""
    keeps_files(bench, "ext4", 3)
