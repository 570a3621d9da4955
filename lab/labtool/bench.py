"""lab/bench: ublk-srp, ib_srp, iSER, iSCSI and NVMe-oF RDMA against the same kind of memory in one guest, alternating.

The figures of one run can be compared with each other and with nothing else: an emulated guest is slow, and its speed
drifts with whatever the machine does beside it.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

from benchmark import points

from . import options, paths, plot, report
from .guest import Guest, Settings
from .wire import EmulatorFault

# A processor that idles in a loop sees its next task at once, as real ones do that idle in MWAIT. An emulated one halts,
# its thread sleeps, and each wake-up costs what the host takes for it: the more wake-ups a peer needs, the more of the
# host's scheduler is measured instead of the peer.
AWAKE = "idle=poll"
PEERS = ("ublk-srp", "ib_srp", "iser", "iscsi", "nvme-rdma", "ublk-memory")


def parser():
    parse = argparse.ArgumentParser(prog="lab/bench", description=__doc__)
    parse.add_argument("--kernel", default="newest", help="newest (default) or a version prefix such as 6.12")
    parse.add_argument("--rounds", type=int, default=7, metavar="N", help="passes over all points (default 7)")
    parse.add_argument("--seconds", type=int, default=2, metavar="S", help="length of each measurement (default 2)")
    parse.add_argument("--points", default="", metavar="LIST", help="only these, by prefix: 4k-read-1,256k")
    parse.add_argument(
        "--peers", default=",".join(PEERS), metavar="LIST",
        help="whom to measure; ratios are to ib_srp, or else to the second. ublk-srp@PROGRAM:OPTION;OPTION is another "
        "build (in the guest, as /opt/ublk-srp/old) or other target options",
    )  # fmt: skip
    parse.add_argument("--short", action="store_true", help="a few points once, to see that it works")
    parse.add_argument(
        "--scale", action="store_true",
        help="instead: how ublk-srp grows with disks (1 to 1,024) and sessions (1 to 64), and what many give beside one, in turns "
        "with ib_srp and the port itself; few of them with --short",
    )  # fmt: skip
    parse.add_argument("--no-limits", action="store_true", help="do not measure the port's own limits")
    parse.add_argument(
        "--counted", action="store_true",
        help="count instructions instead of time: every 10^9 of them are a second, whichever processor executes them, so "
        "that IOPS say what a request costs in all. Two rounds do, as they hardly differ",
    )
    parse.add_argument(
        "--append", default=None, metavar="ARGUMENTS",
        help=f"kernel arguments of the guest (default {AWAKE}, but with --counted: without it an idle processor of the "
        "guest has to be woken by the host, which takes longer than a request)",
    )  # fmt: skip
    parse.add_argument("--out", type=pathlib.Path, help="folder for results.json, table.md and plots")
    return parse


def settings_of(chosen):
    settings = {
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "points": [name for name in chosen.points.split(",") if name],
        # A comma parts peers, so a semicolon parts the options of one.
        "peers": [name.replace(";", ",") for name in chosen.peers.split(",") if name],
        "limits": not chosen.no_limits,
        "counted": chosen.counted,
    }
    if chosen.short:
        settings |= {"rounds": 1, "seconds": 1, "points": list(points.SHORT)}
    points.chosen(settings["points"])
    return settings


def in_guest(chosen, module, settings, memory=3072):
    """Runs a module of lab/benchmark in a fresh guest; what it left in its folder, or nothing when it failed. Once more
    when the emulator failed."""
    try:
        return _in_guest(chosen, module, settings, memory)
    except EmulatorFault as error:
        paths.say(f"the emulator failed, once more: {str(error)[-300:]}")
        return _in_guest(chosen, module, settings, memory)


def _in_guest(chosen, module, settings, memory):
    with tempfile.TemporaryDirectory() as folder:
        append = chosen.append
        if append is None:
            append = "" if chosen.counted else AWAKE
        wanted = Settings(
            kernel=chosen.kernel, memory=memory, append=append, out=pathlib.Path(folder), counted=chosen.counted
        )
        with Guest.boot(wanted) as guest:
            guest.check(["sh", "-c", "fabric-up && target-up"], options.SETUP_LIMIT)
            done = guest.run(
                ["python3", "-B", "-m", f"benchmark.{module}", json.dumps(settings)], limit=6 * 3600,
                env={"PYTHONPATH": "/src/lab"}, output=options.Output(), errors=options.Output(),
            )  # fmt: skip
            if done.code:
                log = guest.run(["sh", "-c", "tail -n 30 /var/log/ublk-srp*.log"], limit=20)
                paths.say(f"the benchmark failed\n{log.text}")
                return None
        return {path.stem: json.loads(path.read_text()) for path in pathlib.Path(folder).glob("*.json")}


def scale(chosen):
    settings = {"disks": [1, 16, 256, 1024], "sessions": [1, 8, 64], "rounds": chosen.rounds, "seconds": chosen.seconds}
    if chosen.short:
        settings = {"disks": [1, 4], "sessions": [1, 2], "rounds": 1, "seconds": 1}
    # Each session has its buffers, and they are pinned.
    result = in_guest(chosen, "scale", settings, memory=3072 if chosen.short else 12288)
    if result is None:
        return 1
    result = result["scale"]
    table = "\n".join([report.growth(result["disks"]), report.growth(result["sessions"]), report.turns(result["turns"])])
    print(table)
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "scale.json").write_text(json.dumps(result))
        (chosen.out / "scale.md").write_text(table + "\n")
    return 0


def main(arguments):
    chosen = parser().parse_args(arguments)
    options.end_on_signals()
    settings = settings_of(chosen)
    subprocess.run([paths.LAB / "build"], check=True)
    if chosen.scale:
        return scale(chosen)
    result = in_guest(chosen, "run", settings)
    if result is None:
        return 1
    result = result["bench"]
    result["command"] = " ".join(["lab/bench", *arguments])
    summary = report.summary(result)
    table = report.markdown(result, summary)
    print(table)
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "results.json").write_text(json.dumps(result))
        (chosen.out / "table.md").write_text(table)
        for name, picture in plot.pictures(result, summary).items():
            (chosen.out / f"{name}.svg").write_text(picture)
    return 0
