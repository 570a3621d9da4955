"""Detaching one of several disks: fast, complete, and of no concern to the others."""

import statistics
import time

from . import daemon, fio, resources, target
from .command import check, equal, run, start
from .registry import case

TRIES = 3
MANY = range(2000, 2160)
MORE = range(1300, 1330)


@case(limit=120, smoke=True)
def one_of_three(bench):
    """An idle disk and its number are gone within a second; the other two go on."""
    disks = bench.attach(None, "--lun", "0,1,2")
    seconds = []
    for _ in range(TRIES):
        disk = disks[1]
        started = time.monotonic()
        outcome = run("ublk-srp", "detach", disk.path)
        seconds.append(time.monotonic() - started)
        check(not disk.traces(), f"after {outcome.seconds:.2f} s there still are {disk.traces()}")
        for lun in (0, 2):
            disks[lun].check_works()
        equal("disks left", sorted(each["lun"] for each in daemon.answer("list")["devices"]), ["0", "2"])
        again = bench.attach(None, "--lun", "1")
        equal("number of the disk attached again", again[1].number, disk.number)
        disks |= again
    print("seconds to detach:", [round(each, 2) for each in seconds])
    check(statistics.median(seconds) < 1, f"detaching takes too long: {seconds}")
    bench.detach()


@case(limit=120)
def beside_busy_ones(bench):
    """The same while the other two are under load, which goes on without an error."""
    disks = bench.attach(None, "--lun", "0,1,2")
    loads = [fio.Running(disks[lun], seconds=12) for lun in (0, 2)]
    for load in loads:
        bench.watch(load.process)
    time.sleep(1)
    run("ublk-srp", "detach", disks[1].path, limit=10)
    check(not disks[1].traces(), f"still there: {disks[1].traces()}")
    for load in loads:
        equal(f"exit code of fio\n{load.told()}\n", load.wait(60), 0)
    bench.detach()


@case()
def all_at_once(bench):
    """detach --all ends every disk and the session."""
    bench.attach()
    report = bench.detach()
    check(all(each["detached"] for each in report["devices"]), str(report))
    equal("disks detached", len(report["devices"]), 9)
    resources.check_released()


@case(limit=240)
def many_at_once(bench):
    """Of very many disks none is too late, and none thinks that the target is gone."""
    ext = 0x200
    target.make_many(MANY)
    target.allow(ext, MANY)
    disks = bench.attach(target.line(initiator_ext=f"{ext:x}"), "--lun", f"{MANY[0]}-{MANY[-1]}", limit=100)
    equal("disks attached", len(disks), len(MANY))
    started = time.monotonic()
    report = bench.detach()
    print(f"{len(MANY)} disks detached in {time.monotonic() - started:.1f} s")
    odd = [each for each in report["devices"] if not each["detached"] or each.get("notes")]
    check(not odd, str(odd))
    equal("disks detached", len(report["devices"]), len(MANY))
    resources.check_released()


@case(limit=150)
def while_others_are_attached(bench):
    """In the middle of an attach of many, disks that are there are detached, and those that come get their numbers: at its end
    exactly the others are there, and all of them go."""
    ext = 0x201
    target.make_many(MORE)
    target.allow(ext, MORE)
    line = target.line(initiator_ext=f"{ext:x}")
    assert bench.daemon
    attach = bench.watch(start(daemon.PROGRAM, "attach", line, "--lun", f"{MORE[0]}-{MORE[-1]}"))
    numbers, gone = [], set()
    while attach.poll() is None:
        there = {each["number"]: each["lun"] for each in daemon.answer("list")["devices"]}
        if there:
            number = min(there)
            (told,) = daemon.answer("detach", f"/dev/ublkb{number}")["devices"]
            check(told["detached"], str(told))
            numbers.append(number)
            gone.add(there[number])
    equal("exit code of attach", attach.returncode, 0)
    print(f"{len(gone)} disks detached meanwhile, of numbers {numbers}", flush=True)
    check(len(numbers) > len(set(numbers)), "no number came again")
    left = {each["lun"] for each in daemon.answer("list")["devices"]}
    equal("disks that are there", left, {str(lun) for lun in MORE} - gone)
    bench.detach()
    resources.check_released()
