"""The target goes away and comes back while disks are attached."""

import time

from . import daemon, fio, target
from .command import attempt, check, equal, run, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

DETACH_BOUND = 20


def states():
    listed = daemon.answer("list")
    return {each["state"] for each in listed["sessions"]} | {each["state"] for each in listed["devices"]}


@case(limit=200, smoke=True)
def while_attached(bench):
    """The session is shown as lost, I/O fails instead of hanging, detach works, and attach finds the data again."""
    disks = bench.attach(None, "--lun", "1,2")
    data = pattern("restart", 2 * CHUNK)
    disks[2].write(data)
    load = fio.Running(disks[1], seconds=120)
    bench.watch(load.process)
    time.sleep(1)
    load.check_at_work()
    target.script("target-restart", limit=120)
    wait_until("list shows the session as lost", lambda: states() == {"lost"}, 30)
    session = daemon.answer("list")["sessions"][0]
    check(session.get("reason"), f"no reason is given: {session}")
    text = daemon.cli("list").out
    check("lost" in text and session["reason"] in text, text)
    equal(f"exit code of fio is an error's\n{load.told()}", load.wait(30) != 0, True)
    check(load.failed(), load.told())
    outcome = attempt("dd", f"if={disks[2].path}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct", limit=10)
    check(outcome.code != 0 and "error" in outcome.err, outcome.told())
    refused = daemon.cli("attach", target.line(), "--lun", "3", limit=20)
    check(refused.code == 5 and "hint:" in refused.err, refused.told())
    run("ublk-srp", "detach", "--all", limit=DETACH_BOUND)
    check(not disks[1].traces() and not disks[2].traces(), "devices are left after detach")
    disks = bench.attach(None, "--lun", "1,2")
    check_same("what was written before the restart", disks[2].read(len(data)), data)
    bench.detach()


@case(limit=150)
def closed_and_opened(bench):
    """A target that is disabled ends the session; once enabled it takes the next."""
    (disk,) = bench.attach(None, "--lun", "2").values()
    disk.check_works()
    target.script("target-disable", limit=60)
    try:
        wait_until("list shows the session as lost", lambda: states() == {"lost"}, 30)
        run("ublk-srp", "detach", disk.path, limit=DETACH_BOUND)
    finally:
        target.script("target-enable")
    (disk,) = bench.attach(None, "--lun", "2").values()
    disk.check_works()
    bench.detach(disk)
