"""Reads and writes of every shape, verified."""

import json
import os
import tempfile
import time

from . import daemon as daemons
from . import allocator, fio, placement, target
from .command import attempt, check, equal
from .registry import case

MIB = 1 << 20
WRITABLE = [lun for lun in target.DISKS if lun != target.READ_ONLY]


def verified(bench, kind, luns):
    size = (64 if bench.full else 4) * MIB
    disks = bench.attach()
    for lun in luns:
        fio.verify(disks[lun], kind, size, limit=400 if bench.full else 90)
    bench.detach()


@case(limit=180, full_limit=3000)
def random(bench):
    """Small random writes at depth 32 on every disk."""
    verified(bench, "random", WRITABLE)


@case(limit=180, full_limit=3000, smoke=True)
def sequential(bench):
    """Requests of 1 MiB on every disk."""
    verified(bench, "sequential", WRITABLE)


@case(limit=240, full_limit=3000, smoke=True)
def mixed(bench):
    """Reads and writes of one block to 1 MiB, by four jobs, on every disk (in short: on one of each block size)."""
    verified(bench, "mixed", WRITABLE if bench.full else (0, 1, 3, 16684))


@case(limit=200, full_limit=600)
def in_pieces(bench):
    """Where no block of the buffers holds a large request its data is put in pieces, described in the command; with
    cmd_sg_entries=1 it waits for one."""
    for entries, wanted in ((None, True), (1, False)):
        options = {"ch_count": "1"} | ({"cmd_sg_entries": str(entries)} if entries else {})
        (disk,) = bench.attach(target.line(**options), "--lun", "0").values()
        fio.crowd(disk, (128 if bench.full else 48) * MIB, limit=250 if bench.full else 80)
        channels = daemons.answer("show", disk.path)["channels"]
        print(channels)
        equal("data in several pieces", sum(channel["in_pieces"] for channel in channels) > 0, wanted)
        bench.detach(disk)


@case()
def read_only(bench):
    """A write-protected LUN refuses writes and can be read."""
    (disk,) = bench.attach(None, "--lun", str(target.READ_ONLY)).values()
    outcome = attempt("dd", "if=/dev/zero", f"of={disk.path}", "bs=4096", "count=1", "oflag=direct")
    check(outcome.code != 0, "a write-protected LUN can be written")
    equal("bytes read", len(disk.read(disk.size)), disk.size)
    bench.detach(disk)


@case(limit=120)
def no_workers(bench):
    """Under load the daemon starts no further threads, and the kernel no io_uring workers for it."""
    disks = bench.attach(None, "--lun", "0,1,3")
    loads = [fio.Running(disk, seconds=15) for disk in disks.values()]
    for load in loads:
        bench.watch(load.process)
    time.sleep(1.5)
    before = bench.daemon.threads()
    for _ in range(30):
        names = bench.daemon.threads()
        check(not any(name.startswith("iou-wrk") for name in names), f"io_uring workers: {names}")
        check(len(names) <= len(before), f"threads grew from {before} to {names}")
        for load in loads:
            load.check_at_work()
        time.sleep(0.3)
    for load in loads:
        equal(f"exit code of fio\n{load.told()}\n", load.wait(60), 0)
    bench.detach()


@case(limit=180)
def allocates_nothing(bench):
    """No reactor calls the allocator for requests of 4 KiB, one or 32 at a time, once its lists have been longer than that; it
    does for a device that comes."""
    disk = bench.attach(None, "--lun", "0")[0]
    # A list grows to the longest that it has been. Each processor's requests go to another reactor.
    for processor in (0, 1):
        fio.load(disk, 128, 2, f"--cpus_allowed={processor}")
    with allocator.probes():
        threads = [task.name for task in placement.tasks_of_reactors(bench.daemon.pid).values()]
        equal("reactors", len(threads), 2)
        with allocator.calls_of(threads) as calls:
            bench.attach(None, "--lun", "1")
        check(calls, "the probes see nothing")
        for depth in (1, 32):
            before = disk.requests()
            with allocator.calls_of(threads) as calls:
                fio.load(disk, depth, 2)
            count = disk.requests() - before
            check(count >= 100, f"only {count} requests at depth {depth}")
            check(not calls, f"{len(calls)} calls for {count} requests at depth {depth}: {calls[:20]}")
            print(f"no call for {count} requests at depth {depth}")
    bench.detach()


@case(limit=400)
def measured(bench):
    """`bench` measures reads of any disk, and writes only of one that nobody uses; its files are there."""
    disk = bench.attach(None, "--lun", "0")[0]
    with tempfile.TemporaryDirectory() as folder:
        words = ("bench", disk.path, "--seconds", "1", "--out", folder, "--json")
        outcome = daemons.cli(*words, "--destroy", limit=300)
        equal(f"exit code\n{outcome.told()}\n", outcome.code, 0)
        points = json.loads(outcome.out)["points"]
        check(all(point["iops"] > 0 for point in points), f"no requests: {points}")
        equal("points", len(points), 13)
        equal("files", sorted(os.listdir(folder)), ["latency.svg", "results.json", "throughput.svg"])
    before = disk.read(MIB)
    with open(disk.path, "rb"):
        outcome = daemons.cli("bench", disk.path, "--seconds", "1", "--destroy")
    equal(f"exit code of a bench of a device in use\n{outcome.told()}\n", outcome.code, 5)
    check("in use" in outcome.err, outcome.told())
    check(disk.read(MIB) == before, "the disk was written")
    bench.detach(disk)
