"""fio with verification: what was written has to come back."""

import re
import subprocess

from .command import Failed, check, run, start

COMMON = (
    "--ioengine=io_uring", "--direct=1", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--group_reporting",
    "--exitall_on_error=1", "--output-format=normal", "--randseed=7", "--allrandrepeat=1", "--thread=1",
)  # fmt: skip
MIB = 1 << 20
KINDS = ("random", "sequential", "mixed")


def arguments(disk, kind, size):
    """Kinds: small random writes at depth 32; 1 MiB sequential writes; 4 jobs that mix all sizes, each on its share."""
    block = int(disk.attribute("queue/logical_block_size"))
    size = min(size, disk.size)
    words = ["fio", f"--name={kind}", f"--filename={disk.path}", *COMMON]
    if kind == "random":
        return [*words, "--rw=randwrite", f"--bs={max(4096, block)}", "--iodepth=32", f"--size={size}"]
    if kind == "sequential":
        return [*words, "--rw=write", "--bs=1m", "--iodepth=8", f"--size={size}"]
    share = size // 4 // MIB * MIB
    return [
        *words, "--rw=randrw", f"--bsrange={block}-{min(MIB, share // 2)}", f"--blockalign={block}", "--iodepth=8",
        "--numjobs=4", f"--size={share}", f"--offset_increment={share}",
    ]  # fmt: skip


def crowd(disk, size, limit=60):
    """Requests of all sizes, more at a time than the buffers of a channel hold."""
    run(
        "fio", "--name=crowd", f"--filename={disk.path}", *COMMON, "--rw=randrw", "--bsrange=4k-1m", "--blockalign=4k",
        "--iodepth=100", f"--size={size}", limit=limit,
    )  # fmt: skip


def verify(disk, kind, size, limit=60):
    run(*arguments(disk, kind, size), limit=limit)


def load(disk, depth, seconds, *more):
    """Reads and writes of 4 KiB."""
    run(
        "fio", "--name=load", f"--filename={disk.path}", "--ioengine=io_uring", "--direct=1", "--rw=randrw", "--bs=4k",
        "--thread=1", f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", *more, limit=seconds + 30,
    )  # fmt: skip


class Running:
    """fio at work while something else happens."""

    def __init__(self, disk, seconds=3600, bs=4096, rw="randrw", more=()):
        self.output = "/tmp/fio.txt"
        with open(self.output, "wb") as output:
            self.process = start(
                "fio", "--name=load", f"--filename={disk.path}", "--ioengine=io_uring", "--direct=1", f"--rw={rw}",
                f"--bs={max(bs, int(disk.attribute('queue/logical_block_size')))}", "--iodepth=8", "--time_based",
                f"--runtime={seconds}", "--thread=1", *more, stdout=output, stderr=output,
            )  # fmt: skip

    def check_at_work(self):
        check(self.process.poll() is None, f"fio ended early:\n{self.told()}")

    def wait(self, limit):
        """Its exit code."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"fio hangs, {limit} s after it should have ended\n{self.told()}") from None

    def told(self):
        with open(self.output, errors="replace") as output:
            return output.read()[-3000:]

    def failed(self):
        """Whether it tells of an input/output error."""
        return bool(re.search(r"io_u error|Input/output error|No such device", self.told()))
