"""How ublk-srp grows: disks of one session, sessions with a disk each, and what it does when nothing happens. Whether
requests are served as fast by many as by one is measured in turns, with as many readers.

One reactor, 32 commands a session. The disks are LIO's ramdisks without memory (nullio): they exist to be many.
"""

import json
import pathlib
import subprocess
import sys
import time

from cases import target
from cases.command import Failed, attempt, run, wait_until

from . import peers, perftest, udev

#: LUNs and initiator_exts of this measurement begin here, beyond those of the lab's own target.
FIRST_LUN = 2000
FIRST_EXT = 0x100
SESSION_EXT = 0x1000
KERNEL_EXT = 0x2000
#: Readers of all disks together, each with one read under way.
READERS = 32
#: A thread that waited for the file system on behalf of an attach has ended by then.
IDLE = 12


class Daemon:
    socket = "/run/ublk-srp/scale.sock"
    program = ("ublk-srp", "--socket", socket)

    def __enter__(self):
        self.log = open("/var/log/ublk-srp-scale.log", "ab")
        self.process = subprocess.Popen(
            [*self.program, "daemon", "--reactors", "1", "--log", "warn"],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until("the daemon answers", lambda: attempt(*self.program, "status").code == 0, 20)
        return self

    def __exit__(self, *_):
        run(*self.program, "detach", "--all", limit=600)
        self.process.terminate()
        self.process.wait(60)
        self.log.close()

    def attach(self, ext, luns):
        """Device paths, and the seconds it took."""
        line = target.line(initiator_ext=f"{ext:x}") + ",queue_size=32"
        started = time.monotonic()
        told = run(*self.program, "attach", line, "--lun", luns, "--json", limit=600).out
        seconds = time.monotonic() - started
        return [device["path"] for device in json.loads(told.splitlines()[0])["devices"]], seconds

    def threads(self):
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()))

    def memory(self, kind="VmRSS"):
        """KiB resident: all of it, or without files and buffers (RssAnon)."""
        return field(f"/proc/{self.process.pid}/status", kind)

    def switches(self):
        """Of each thread."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return {task.name: field(task / "status", "voluntary_ctxt_switches") for task in tasks}


def field(path, name):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise Failed(f"{path} has no {name}")


def kernel_memory():
    """KiB of the guest that are not available, without the page cache."""
    return field("/proc/meminfo", "MemTotal") - field("/proc/meminfo", "MemAvailable")


def iops(devices, seconds):
    # With disk_util fio looks for each disk among all of them when it begins, and reads the statistics of each
    # four times a second.
    jobs = []
    for reader in range(READERS):
        # A list of more than 4,096 letters is too long for fio.
        mine = devices[reader::READERS] or devices
        jobs += [f"--name=reader{reader}", f"--filename={':'.join(mine)}"]
    outcome = run(
        "fio", "--rw=randread", "--bs=4096", "--ioengine=io_uring", "--direct=1", "--iodepth=1",
        "--thread=1", "--time_based", f"--runtime={seconds}", "--ramp_time=1", "--norandommap=1", "--randrepeat=0",
        "--output-format=json", "--group_reporting", "--disk_util=0", *jobs,
        limit=seconds + 300,
    )  # fmt: skip
    return json.loads(outcome.out[outcome.out.index("{") :])["jobs"][0]["read"]["iops"]


def in_turns(what, ways, rounds):
    """Requests a second by each of the ways to make them, which all take a turn in each round."""
    figures = {way: [] for way in ways}
    for number in range(rounds):
        shift = number % len(ways)
        for way in [*ways][shift:] + [*ways][:shift]:
            figures[way].append(ways[way]())
        print(f"{what}: {', '.join(f'{way} {own[-1]:.0f}' for way, own in figures.items())}", file=sys.stderr, flush=True)
    return {"what": what, "figures": figures}


def disks(counts, rounds, seconds):
    """A row for each number of disks of one session, and what so many of them give."""
    rows = []
    for number, count in enumerate(counts):
        luns = range(FIRST_LUN, FIRST_LUN + count)
        target.allow(FIRST_EXT + number, luns)
        with Daemon() as daemon:
            paths, first = daemon.attach(FIRST_EXT + number, str(luns[0]))
            run("udevadm", "settle", "-t", "300", limit=310)
            base, base_kernel = daemon.memory("RssAnon"), kernel_memory() - daemon.memory()
            more, rest, last = [], 0, first
            if count > 2:
                more, rest = daemon.attach(FIRST_EXT + number, f"{luns[1]}-{luns[-2]}")
            if count > 1:
                one, last = daemon.attach(FIRST_EXT + number, str(luns[-1]))
                more = [*more, *one]
            run("udevadm", "settle", "-t", "300", limit=310)
            others = max(count - 1, 1)
            row = {
                "disks": count,
                "daemon KiB a disk": (daemon.memory("RssAnon") - base) / others if count > 1 else None,
                "kernel KiB a disk": (kernel_memory() - daemon.memory() - base_kernel) / others if count > 1 else None,
                "ms a disk, all": rest / max(count - 2, 1) * 1000 if count > 2 else None,
                "ms, the last one": last * 1000,
            }
            time.sleep(IDLE)
            before = daemon.switches()
            time.sleep(10)
            after = daemon.switches()
            row["wake-ups a second, idle"] = sum(count - before.get(task, 0) for task, count in after.items()) / 10
            row["threads"] = daemon.threads()
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if count == max(counts):
                paths = [*paths, *more]
                with udev.quiet():
                    ways = {f"{some} of them": lambda some=some: iops(paths[:some], seconds) for some in counts}
                    turns = in_turns(f"ublk-srp, {count} disks of one session", ways, rounds)
    return rows, [turns]


def sessions(counts, rounds, seconds):
    """A row for each number of sessions with a disk each, and what the most of them give beside one session with all those
    disks; the same with ib_srp, and of the port itself."""
    rows = []
    most = max(counts)
    luns = range(FIRST_LUN, FIRST_LUN + most)
    for first in (SESSION_EXT, KERNEL_EXT):
        for number, lun in enumerate(luns):
            target.allow(first + number, [lun])
        target.allow(first + most, luns)
    for count in counts:
        with Daemon() as daemon:
            paths, base = [], 0
            for number in range(count):
                paths += daemon.attach(SESSION_EXT + number, str(luns[number]))[0]
                base = base or daemon.memory()
            run("udevadm", "settle", "-t", "300", limit=310)
            time.sleep(IDLE)
            row = {
                "sessions": count,
                "daemon KiB a session": (daemon.memory() - base) / (count - 1) if count > 1 else None,
                "threads": daemon.threads(),
            }
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if count == most:
                together, _ = daemon.attach(SESSION_EXT + most, f"{luns[0]}-{luns[-1]}")
                turns = against_many(counts, together, paths, rounds, seconds)
    return rows, turns


def against_many(counts, together, apart, rounds, seconds):
    many = sorted(set(counts) - {1})
    most = many[-1]
    before = peers.sessions_of_kernel()
    try:
        kernel_together = peers.kernel_disks(KERNEL_EXT + most, 1, most)
        kernel_apart = peers.kernel_disks(KERNEL_EXT, most, most)
        turns = []
        with udev.quiet():
            for who, one, each in (("ublk-srp", together, apart), ("ib_srp", kernel_together, kernel_apart)):
                ways = {f"{most} of one session": lambda one=one: iops(one, seconds)}
                for count in many:
                    ways[f"one of each of {count} sessions"] = lambda each=each, count=count: iops(each[:count], seconds)
                turns.append(in_turns(f"{who}, disks", ways, rounds))
            ways = {
                f"{pairs}, {READERS // pairs} each": lambda pairs=pairs: perftest.reads(pairs, seconds, READERS)
                for pairs in (1, 4, READERS)
            }
            turns.append(in_turns("the port itself (ib_read_bw), queue pairs", ways, rounds))
        return turns
    finally:
        peers.end_sessions_of_kernel(peers.sessions_of_kernel() - before)


def main():
    settings = json.loads(sys.argv[1])
    # Kernels before 6.15 count every device.
    attempt("modprobe", "-r", "ublk_drv")
    run("modprobe", "ublk_drv", "ublks_max=4096")
    most = max(*settings["disks"], *settings["sessions"])
    print(f"making {most} disks", file=sys.stderr, flush=True)
    target.make_many(range(FIRST_LUN, FIRST_LUN + most))
    result = {}
    try:
        result["disks"], result["turns"] = disks(settings["disks"], settings["rounds"], settings["seconds"])
        result["sessions"], more = sessions(settings["sessions"], settings["rounds"], settings["seconds"])
        result["turns"] += more
    finally:
        pathlib.Path("/out/scale.json").write_text(json.dumps(result))
        subprocess.run(["sync"])


main()
