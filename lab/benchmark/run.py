"""python3 -m benchmark.run SETTINGS: in a guest with a target up. SETTINGS and the result are JSON."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from cases.command import Failed, attempt, run

from . import peers, perftest, points, udev

MOUNT = "/mnt"
FILE_SIZE = 48 << 20
TICKS = os.sysconf("SC_CLK_TCK")
COUNTERS = pathlib.Path("/sys/class/infiniband/rxe0/ports/1/hw_counters")


def told_repeats(counts):
    return "".join(f", {count} {name}" for name, count in counts.items())


@dataclass(frozen=True)
class Moment:
    """Of the whole guest, as fio saw it when a job began or ended (points.noting): it takes fio a second of processor
    time or so to begin and to report, which is no initiator's."""

    busy: float  # CPU seconds that were not idle, since boot
    time: float  # seconds since boot

    @classmethod
    def taken(cls, name):
        noted = pathlib.Path(name)
        lines = noted.read_text().splitlines()
        noted.unlink()
        ticks = [int(field) for field in lines[0].split()[1:9]]
        return cls((sum(ticks) - ticks[3] - ticks[4]) / TICKS, float(lines[-1].split()[0]))


def repeats():
    """What the port has sent again or been sent again so far, by the counter that says so. A request that waits for such a
    timeout tells nothing about its initiator."""
    names = ("completer_retry_err", "duplicate_request", "out_of_seq_request", "rcvd_rnr_err", "rcvd_seq_err", "send_rnr_err")
    return {name: int((COUNTERS / name).read_text()) for name in names}


def repeats_since(before):
    return {name: count - before[name] for name, count in repeats().items() if count > before[name]}


def job(outcome):
    """Reads and writes of fio's JSON, as one."""
    told = json.loads(outcome.out[outcome.out.index("{") :])["jobs"][0]
    if told["error"]:
        raise Failed(outcome.told())
    sides = [told[side] for side in ("read", "write") if told[side]["total_ios"]]
    ios = sum(side["total_ios"] for side in sides)
    percentile = {
        key: max(side["clat_ns"].get("percentile", {}).get(f"{key:.6f}", 0) for side in sides) / 1000
        for key in (50.0, 99.0, 99.9)
    }
    return {
        "ios": ios,
        "iops": sum(side["iops"] for side in sides),
        "bytes_per_second": sum(side["bw_bytes"] for side in sides),
        "latency_us": {f"{key:g}": value for key, value in percentile.items()},
        "slowest_us": max(side["clat_ns"]["max"] for side in sides) / 1000,
        "fio_cpu": told["usr_cpu"] + told["sys_cpu"],
    }


def on_file(point, path):
    """A file on a new filesystem, written; or read past the page cache."""
    run("blockdev", "--flushbufs", path)
    run("mkfs.ext4", "-F", "-q", "-E", "nodiscard", path, limit=60)
    run("mount", path, MOUNT)
    try:
        name = f"{MOUNT}/file"
        if point.rw == "read":
            run("dd", "if=/dev/zero", f"of={name}", "bs=1M", f"count={FILE_SIZE >> 20}", "conv=fsync", "status=none")
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return run(*point.fio(name, 0, FILE_SIZE), limit=120)
    finally:
        run("umount", MOUNT, limit=60)


def measure(peer, point, path, seconds):
    repeated = repeats()
    figures = peer.figures() if hasattr(peer, "figures") else None
    if point.file:
        outcome = on_file(point, path)
    else:
        outcome = run(*point.fio(path, seconds, peers.SIZE), limit=seconds + 60)
    result = job(outcome)
    begun, ended = Moment.taken("begun"), Moment.taken("ended")
    # fio does not report what it did while it ramped up, the moments include it.
    ios = max(result["iops"] * (ended.time - begun.time), 1)
    result["guest_cpu_us_per_io"] = (ended.busy - begun.busy) * 1e6 / ios
    result["repeats"] = repeats_since(repeated)
    if figures:
        after = peer.figures()
        result["daemon"] = {key: (after[key] - figures[key]) / ios for key in figures}
    return result


def in_turns(point, running, seconds):
    """All peers at once. What the guest's processors did meanwhile cannot be told apart."""
    repeated = repeats()
    outcome = run(*point.in_turns([path for _, path in running], seconds), limit=2 * len(running) * seconds + 60)
    again = repeats_since(repeated)
    for (peer, _), line in zip(running, outcome.out.splitlines(), strict=True):
        yield peer, {**json.loads(line), "repeats": again}


def measurements(point, running, seconds):
    """Of each peer at that point, in this order."""
    if point.turns:
        yield from in_turns(point, running, seconds)
        return
    for peer, path in running:
        if not (point.file and peer.name == "ublk-memory"):
            yield peer, measure(peer, point, path, seconds)


def rounds(settings, chosen, running):
    """Measures each point with each peer again and again. Each round begins with another peer, so that none always comes first."""
    for number in range(settings["rounds"]):
        turn = number % len(running)
        order = running[turn:] + running[:turn]
        for point in chosen:
            for peer, measured in measurements(point, order, settings["seconds"]):
                print(
                    f"round {number + 1}: {point.name:16} {peer.name:12} {measured['iops']:9.0f} IOPS "
                    f"{measured['bytes_per_second'] / 1e6:8.1f} MB/s, slowest {measured['slowest_us'] / 1000:.1f} ms"
                    f"{told_repeats(measured['repeats'])}",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                yield {"round": number, "point": point.name, "peer": peer.name, **measured}


def versions():
    def said(*argv):
        outcome = attempt(*argv)
        return (outcome.out or outcome.err).strip().splitlines()[0] if outcome.out or outcome.err else "?"

    return {
        "kernel": os.uname().release,
        "fio": said("fio", "--version"),
        "nvme-cli": said("nvme", "version"),
        "open-iscsi": said("iscsiadm", "--version"),
        "ublk-srp": said("ublk-srp", "--version"),
        "processors": os.cpu_count(),
    }


def main():
    settings = json.loads(sys.argv[1])
    os.chdir(tempfile.mkdtemp())  # for what fio leaves in its working directory
    chosen = points.chosen(settings["points"])
    running, results = [], []
    result = {"settings": settings, "versions": versions(), "points": [vars(point) for point in chosen]}
    try:
        if settings["limits"]:
            result["limits"] = perftest.limits(2)
        for number, name in enumerate(settings["peers"]):
            peer = peers.named(name, number, settings["counted"])
            print(f"starting {name}", file=sys.stderr, flush=True)
            running.append((peer, peer.start()))
        with udev.quiet():
            results.extend(rounds(settings, chosen, running))
    finally:
        result["results"] = results
        pathlib.Path("/out/bench.json").write_text(json.dumps(result))
        for peer, _ in reversed(running):
            peer.stop()
    subprocess.run(["sync"])


main()
