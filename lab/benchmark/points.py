"""What is measured: one fio job a point, or requests to all peers in turns."""

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
IN_TURNS = "/opt/ublk-srp/examples/in_turns"


def noting(moment):
    """For fio: what the guest has done so far, into a file of that name. Of several jobs at once the last one's, whole."""
    return f"cat /proc/stat /proc/uptime >$$.{moment} && mv $$.{moment} {moment}"


@dataclass(frozen=True)
class Point:
    name: str
    rw: str
    block: int
    depth: int
    jobs: int = 1
    file: bool = False  # buffered, in a file on a filesystem
    turns: bool = False  # not by fio: all peers in turns of a tenth of a second, see examples/in_turns.rs
    unit: str = "IOPS"

    def in_turns(self, paths, seconds):
        """The command that reads or writes the devices in turns, each for so long in all."""
        return [IN_TURNS, "--seconds", seconds, *(["--write"] if self.rw == "randwrite" else []), *paths]

    def fio(self, path, seconds, size):
        """The fio command on a device, or on a file of it."""
        words = [
            "fio", f"--name={self.name}", f"--filename={path}", f"--rw={self.rw}", f"--bs={self.block}",
            f"--size={size}", "--output-format=json", "--thread=1", "--randrepeat=0", "--norandommap=1",
            "--group_reporting", "--percentile_list=50:99:99.9",
            f"--exec_prerun={noting('begun')}", f"--exec_postrun={noting('ended')}",
        ]  # fmt: skip
        if self.file:
            return [*words, "--ioengine=psync", "--end_fsync=1", "--fallocate=none", f"--numjobs={self.jobs}"]
        if self.rw == "randrw":
            words.append("--rwmixread=70")
        return [
            *words, "--ioengine=io_uring", "--direct=1", f"--iodepth={self.depth}", f"--numjobs={self.jobs}",
            "--time_based", f"--runtime={seconds}", "--ramp_time=0.3",
        ]  # fmt: skip


def _random():
    for rw, word in (("randread", "read"), ("randwrite", "write")):
        for depth in (1, 8, 32, 128):
            yield Point(f"4k-{word}-{depth}", rw, 4 * KIB, depth)
            if depth == 1:
                yield Point(f"4k-{word}-1-turns", rw, 4 * KIB, depth, turns=True)
        yield Point(f"4k-{word}-4x32", rw, 4 * KIB, 32, jobs=4)


def _sequential():
    for block, word in ((64 * KIB, "64k"), (256 * KIB, "256k"), (MIB, "1m")):
        for rw in ("read", "write"):
            yield Point(f"{word}-{rw}-8", rw, block, 8, unit="MB/s")


POINTS = [
    *_random(),
    *_sequential(),
    Point("4k-mixed-32", "randrw", 4 * KIB, 32),
    Point("file-write", "write", 256 * KIB, 1, file=True, unit="MB/s"),
    Point("file-read", "read", 256 * KIB, 1, file=True, unit="MB/s"),
]
SHORT = ("4k-read-1", "4k-write-1-turns", "4k-write-32", "256k-read-8", "file-write")


def chosen(names):
    """The points of these names; a name that is none is a prefix. All when none is given."""
    exact = {point.name for point in POINTS}.intersection(names)
    prefixes = tuple(set(names) - exact) if names else ("",)
    found = [point for point in POINTS if point.name in exact or point.name.startswith(prefixes)]
    if not found:
        raise SystemExit(f"no such point; there are {', '.join(point.name for point in POINTS)}")
    return found
