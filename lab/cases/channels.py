"""Channels of a session are lost one by one, with a wire between initiator and target: the others carry on."""

import time

from . import daemon, fio, resources, target
from .command import attempt, check, equal, run, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

PORT = "eth0"
# The transport's retries.
LOSS = 30
# A lost channel is made anew a second later, and every ten seconds when that fails.
RETURN = 40


def queue_pairs():
    """Numbers of the daemon's queue pairs."""
    return sorted(pair["lqpn"] for pair in resources.rdma("qp"))


def prepare():
    """Before the session exists: soft-RoCE fails queue pairs while the port's queues are exchanged."""
    run("modprobe", "-a", "sch_ingress", "cls_u32", "act_gact")
    if "clsact" not in run("tc", "qdisc", "show", "dev", PORT).out:
        run("tc", "qdisc", "add", "dev", PORT, "clsact")


def silence(number):
    """Nothing reaches that queue pair any more: UDP port 4791, and its number in the base transport header."""
    run(
        "tc", "filter", "add", "dev", PORT, "ingress", "protocol", "ip", "u32", "match", "ip", "dport", 4791, "0xffff",
        "match", "u32", hex(number), "0x00ffffff", "at", 32, "action", "drop",
    )  # fmt: skip


def hear_again():
    attempt("tc", "filter", "del", "dev", PORT, "ingress")


def session():
    (found,) = daemon.answer("list")["sessions"]
    return found


def channels():
    return session()["channels"]


def at_work(disk, processor):
    """Both ways, from the queue of that processor."""
    data = pattern(f"from {processor}", CHUNK)
    with open("/tmp/data", "wb") as file:
        file.write(data)
    pinned = ("taskset", "-c", processor)
    run(*pinned, "dd", "if=/tmp/data", f"of={disk.path}", "bs=64k", "oflag=direct", "conv=notrunc", limit=60)
    run(*pinned, "dd", f"if={disk.path}", "of=/tmp/back", "bs=64k", f"count={len(data) >> 16}", "iflag=direct", limit=60)
    with open("/tmp/back", "rb") as file:
        check_same(f"what processor {processor} wrote", file.read(), data)


def errors(disk):
    return daemon.answer("show", disk.path)["counters"]["errors"]


@case(limit=300, pair=True)
def lost_one_by_one(bench):
    """The only channel of a processor falls silent under load: no request fails, the other one's serves both queues, and it
    comes back."""
    prepare()
    disks = bench.attach(target.line(ch_count=2), "--lun", "0,1")
    equal("channels", channels(), 2)
    before = queue_pairs()
    equal("queue pairs", len(before), 2)
    load = fio.Running(disks[0], rw="randread")
    bench.watch(load.process)
    try:
        for number in before:
            silence(number)
            wait_until("one channel is lost", lambda: channels() == 1, LOSS)
            equal("state", session()["state"], "running")
            for processor in (0, 1):
                at_work(disks[1], processor)
            wait_until("the channel is back", lambda: channels() == 2, RETURN)
            now = queue_pairs()
            check(number not in now, f"queue pair {number} is still there: {now}")
            for processor in (0, 1):
                at_work(disks[1], processor)
            load.check_at_work()
        equal("errors", [errors(disk) for disk in disks.values()], [0, 0])
        equal("sessions at the target", set(target.sessions()), {target.port_name(0)})
    finally:
        hear_again()
    fio.verify(disks[1], "mixed", 8 * CHUNK)
    load.process.terminate()
    load.wait(20)
    bench.detach()


@case(limit=150, pair=True)
def one_of_a_processor_lost(bench):
    """One of a processor's two channels falls silent under load, then the other: no request fails, and both come back."""
    prepare()
    disks = bench.attach(None, "--lun", "0,1")
    before = queue_pairs()
    equal("channels and queue pairs", (channels(), len(before)), (4, 4))
    load = fio.Running(disks[0], rw="randread")
    bench.watch(load.process)
    try:
        # The processors got them in turn.
        for number in (before[0], before[2]):
            silence(number)
            wait_until("one channel is lost", lambda: channels() == 3, LOSS)
            at_work(disks[1], 0)
            wait_until("the channel is back", lambda: channels() == 4, RETURN)
            now = queue_pairs()
            check(number not in now, f"queue pair {number} is still there: {now}")
            load.check_at_work()
        for processor in (0, 1):
            at_work(disks[1], processor)
        equal("errors", [errors(disk) for disk in disks.values()], [0, 0])
    finally:
        hear_again()
    load.process.terminate()
    load.wait(20)
    bench.detach()


@case(limit=300, pair=True)
def all_lost(bench):
    """Both of two channels fall silent: the session is lost and says so; what replaces them comes too late or not at all."""
    prepare()
    disks = bench.attach(target.line(ch_count=2), "--lun", "1")
    disks[1].check_works()
    try:
        for number in queue_pairs():
            silence(number)
        wait_until("the session is lost", lambda: attempt_read(disks[1]) and session()["state"] == "lost", 2 * LOSS)
        check(session()["reason"], "no reason")
        time.sleep(3)
        equal("state", session()["state"], "lost")
        equal("channels", channels(), 0)
        equal("queue pairs", queue_pairs(), [])
    finally:
        hear_again()
    bench.detach()
    bench.attach(None, "--lun", "1")[1].check_works()
    bench.detach()


def attempt_read(disk):
    """From both queues; it may fail, and is not waited for long."""
    for processor in (0, 1):
        attempt("taskset", "-c", processor, "dd", f"if={disk.path}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct", limit=90)
    return True
