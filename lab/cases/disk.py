"""A block device made by the daemon, as the kernel shows it."""

import hashlib
import os
import pathlib

from .command import Failed, check, run

CHUNK = 1 << 20


class Disk:
    def __init__(self, info):
        self.info = info
        self.number = info["number"]
        self.path = info["path"]
        self.lun = int(info["lun"])
        self.name = f"ublkb{self.number}"
        self.sysfs = pathlib.Path("/sys/class/block") / self.name

    def attribute(self, name):
        return (self.sysfs / name).read_text().strip()

    def requests(self):
        """Reads and writes that the block layer has seen done."""
        fields = self.attribute("stat").split()
        return int(fields[0]) + int(fields[4])

    @property
    def size(self):
        return int(self.attribute("size")) * 512

    def traces(self):
        """The paths that are there as long as the device is."""
        paths = [
            f"/dev/ublkb{self.number}",
            f"/dev/ublkc{self.number}",
            str(self.sysfs),
            f"/sys/class/ublk-char/ublkc{self.number}",
        ]
        return [path for path in paths if os.path.lexists(path)]

    def write(self, data, offset=0):
        """Writes past the page cache, in whole megabytes."""
        source = pathlib.Path("/tmp/written")
        source.write_bytes(data)
        run("dd", f"if={source}", f"of={self.path}", "bs=1M", f"seek={offset // CHUNK}",
            "oflag=direct", "conv=notrunc,fsync", "status=none")  # fmt: skip

    def read(self, length, offset=0):
        """Reads past the page cache."""
        seen = pathlib.Path("/tmp/read")
        run("dd", f"if={self.path}", f"of={seen}", "bs=1M", f"skip={offset // CHUNK}", f"count={length // CHUNK}",
            "iflag=direct", "status=none")  # fmt: skip
        return seen.read_bytes()

    def check_works(self):
        """Reads and writes it."""
        data = os.urandom(CHUNK)
        self.write(data)
        check(self.read(CHUNK) == data, f"{self.path} (LUN {self.lun}) gives back other data than was written")


def by_lun(infos):
    """The entries of an attach or a list as disks."""
    return {int(info["lun"]): Disk(info) for info in infos}


def pattern(seed, length):
    """The same bytes for the same seed."""
    block = hashlib.sha512(str(seed).encode()).digest()
    return (block * (length // len(block) + 1))[:length]


def check_same(what, seen, wanted):
    if seen != wanted:
        first = next((at for at, (a, b) in enumerate(zip(seen, wanted)) if a != b), min(len(seen), len(wanted)))
        raise Failed(f"{what}: other data from byte {first} on ({len(seen)} bytes, {len(wanted)} wanted)")
