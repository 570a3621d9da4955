"""Where reactors run: not on the processor whose requests come to them."""

import pathlib

from . import daemon, target
from .command import check, equal, run, wait_until
from .registry import case


def tasks_of_reactors(pid):
    """Their folders in /proc, by name."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
        except OSError:  # a thread that has ended meanwhile
            continue
        if name.startswith("srp-reactor/"):
            found[name] = task
    return found


def reactors(pid):
    """Of each, by its name: the processors it may run on, and how often it has slept."""
    found = {}
    for name, task in tasks_of_reactors(pid).items():
        lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        found[name] = (lines["Cpus_allowed_list"].strip(), int(lines["voluntary_ctxt_switches"]))
    return found


def allowances(pid):
    return sorted(allowed for allowed, _ in reactors(pid).values())


def serving(bench, disk, processor):
    """The processors of the reactors that had work while that processor's client read."""
    before = reactors(bench.daemon.pid)
    run("taskset", "-c", processor, "dd", f"if={disk.path}", "of=/dev/null", "bs=4k", "count=200", "iflag=direct", limit=60)
    after = reactors(bench.daemon.pid)
    return {allowed for name, (allowed, slept) in after.items() if slept - before[name][1] >= 100}


@case(smoke=True)
def off_the_clients_processors(bench):
    """Each of two reactors keeps to the other processor than that of its clients, of all disks; where one serves both, it may be anywhere."""
    disks = bench.attach(None, "--lun", "0") | bench.attach(None, "--lun", "1")
    # They are told when the disk is there.
    wait_until("each keeps to a processor", lambda: allowances(bench.daemon.pid) == ["0", "1"], 10)
    for disk in disks.values():
        for processor, other in ((0, "1"), (1, "0")):
            equal(f"who serves processor {processor}", serving(bench, disk, processor), {other})
        disk.check_works()
    bench.detach()
    bench.daemon.end()
    bench.forget_daemon()
    alone = daemon.Daemon("--reactors", "1")
    daemon.answer("attach", target.line(), "--lun", "1", limit=60)
    equal("where a lone one may run", allowances(alone.pid), ["0-1"])
    daemon.answer("detach", "--all")
    alone.end()
    check(not alone.running(), "it runs")
