"""With a wire between initiator and target: the cable is cut, packets are dropped."""

import time

from . import daemon, fio, resources, target
from .command import attempt, check, equal, run, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

DEADLINE = 10
SLACK = 10  # an emulated guest is slow
PORT = "eth0"


def prepare_loss():
    """Before the session exists: soft-RoCE fails a queue pair whose packet the port itself refuses, as it does while
    its queue is exchanged for another or is full. What a wire loses is another matter."""
    run("modprobe", "sch_netem")
    run("tc", "qdisc", "replace", "dev", PORT, "root", "netem", "limit", 100000, "loss", "0%")


def lose(percent):
    run("tc", "qdisc", "change", "dev", PORT, "root", "netem", "limit", 100000, "loss", f"{percent}%")


def drop_everything():
    lose(100)


def pass_everything():
    lose(0)
    run("cable", "in")


def check_detach_in_time(*words):
    started = time.monotonic()
    outcome = daemon.cli("detach", "--all", *words, limit=120)
    seconds = time.monotonic() - started
    print(outcome.told(), flush=True)
    equal(f"exit code of detach\n{outcome.told()}", outcome.code, 0)
    check(not resources.ublk_devices(), f"left: {resources.ublk_devices()}")
    check(seconds < DEADLINE + SLACK, f"detach took {seconds:.1f} s")


def back_to_work(bench, data):
    """After the wire is back the target takes us again; its old session may need a while to be noticed."""
    pass_everything()

    def answers():
        return attempt("ping", "-c1", "-W1", target.environment()["DEST4"].rpartition(":")[0]).code == 0

    wait_until("the target answers a ping", answers, 30)
    disks = bench.attach(None, "--lun", "1,2", limit=90)
    check_same("what was written before", disks[2].read(len(data)), data)
    disks[1].check_works()
    bench.detach()


def dead_target(bench, break_wire, load, *words):
    prepare_loss()
    disks = bench.attach(None, "--lun", "1,2")
    data = pattern("wire", 2 * CHUNK)
    disks[2].write(data)
    if load:
        load = fio.Running(disks[1])
        bench.watch(load.process)
        time.sleep(2)
        load.check_at_work()
    try:
        break_wire()
        check_detach_in_time(*words)
        if load:
            check(load.wait(20) != 0, "fio does not notice that its disk went")
        resources.check_nothing_held()
    except BaseException:
        pass_everything()
        raise
    back_to_work(bench, data)


@case(limit=150, full_limit=1500, smoke=True, pair=True)
def verified(bench):
    """All is well while the wire is whole."""
    disks = bench.attach()
    for kind in fio.KINDS:
        fio.verify(disks[1], kind, (64 if bench.full else 8) * CHUNK, limit=400 if bench.full else 90)
    bench.detach()


@case(limit=240, smoke=True, pair=True)
def cable_cut(bench):
    """The cable is cut while nothing happens; detach."""
    dead_target(bench, lambda: run("cable", "out"), False)


@case(limit=240, pair=True)
def cable_cut_under_load(bench):
    """The cable is cut under load; detach --force."""
    dead_target(bench, lambda: run("cable", "out"), True, "--force")


@case(limit=150, pair=True)
def probed_in_silence(bench):
    """The fabric says that the port is gone, and it is: the idle session is lost within a second, and says why."""
    data = pattern("wire", 2 * CHUNK)
    prepare_loss()
    # With 7 retries a soft-RoCE queue pair never fails by itself.
    bench.attach(target.line(tl_retry_count="7"), "--lun", "2")[2].write(data)
    address = target.environment()["DEST4"].rpartition(":")[0]
    drop_everything()
    try:
        started = time.monotonic()
        (probed,) = daemon.call("probe", port=address)["sessions"]
        seconds = time.monotonic() - started
        check(not probed["alive"] and seconds < 1 + SLACK / 4, f"{probed} after {seconds:.1f} s")
        wait_until("the session is lost", lambda: daemon.answer("list")["sessions"][0]["state"] == "lost", 2)
        (session,) = daemon.answer("list")["sessions"]
        check("does not answer within 1 s" in session["reason"], session["reason"])
        equal("sessions probed once more", daemon.call("probe", port=address)["sessions"], [])
        check_detach_in_time()
    except BaseException:
        pass_everything()
        raise
    back_to_work(bench, data)


@case(limit=240, pair=True)
def packets_dropped(bench):
    """Packets vanish while nothing happens; detach --force."""
    dead_target(bench, drop_everything, False, "--force")


@case(limit=240, pair=True)
def packets_dropped_under_load(bench):
    """Packets vanish under load: the session is lost after the transport's retries, or detach --force gives it up."""
    dead_target(bench, drop_everything, True, "--force")


@case(limit=240, full_limit=600, pair=True)
def lossy_wire(bench):
    """One packet in a hundred is lost, and no data."""
    prepare_loss()
    disks = bench.attach(None, "--lun", "0")
    try:
        lose(1)
        fio.verify(disks[0], "sequential", (32 if bench.full else 4) * CHUNK, limit=150)
    finally:
        pass_everything()
    bench.detach()
