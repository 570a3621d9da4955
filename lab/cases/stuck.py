"""A logical unit stands still while its target goes on: LIO over a device-mapper device that is suspended.

LIO answers neither ABORT TASK nor LOGICAL UNIT RESET before the commands they are about have come back from below.
"""

import json
import pathlib
import threading
import time

from . import daemon, fio, target
from .command import Failed, attempt, check, equal, run, start, wait_until
from .disk import CHUNK, by_lun, check_same, pattern
from .registry import case

LUN = 400
EXT = 0x400
NAME = "stuck"
MEBIBYTES = 64
PROCESSORS = (0, 1)
# Of the session, two for each processor.
CHANNELS = 4
# A command's time, that of two functions, and what making the channels anew takes in an emulated guest.
LADDER = 30 + 5 + 5
SUCCESSION = 10
# After two minutes a request fails; the attempt that was begun before comes to its end.
LONG = 132
# For units that are well: half of the ladder. An emulated guest on a busy host stands still for seconds by itself.
PAUSE = LADDER / 2
# Ten seconds of silence, two functions, a channel made anew, and the same slowness.
DETACH_BOUND = 10 + 5 + 5 + SUCCESSION + 15


def make_unit():
    """The unit, and an initiator port that sees it beside LUN 0, unless they are there."""
    if not pathlib.Path("/dev/mapper", NAME).exists():
        run("modprobe", "brd", "rd_nr=1", f"rd_size={MEBIBYTES << 10}")
        run("modprobe", "-a", "dm-mod", "target_core_iblock")
        run("dmsetup", "create", NAME, "--table", f"0 {MEBIBYTES << 11} linear /dev/ram0 0")
    folder = target.portal_group() / "lun" / f"lun_{LUN}"
    if not folder.exists():
        store = target.CONFIG / "core" / f"iblock_{LUN}" / NAME
        store.mkdir(parents=True)
        (store / "control").write_text(f"udev_path=/dev/mapper/{NAME}")
        (store / "enable").write_text("1")
        folder.mkdir()
        (folder / NAME).symlink_to(store)
    if not (target.portal_group() / "acls" / target.port_name(EXT)).exists():
        target.allow(EXT, (0, LUN))


def attach(bench):
    """The unit and its neighbour."""
    make_unit()
    disks = bench.attach(target.line(initiator_ext=f"{EXT:x}"), "--lun", f"0,{LUN}")
    return disks[LUN], disks[0]


def stop():
    run("dmsetup", "suspend", "--nolockfs", NAME)


def go_on():
    run("dmsetup", "resume", NAME)


class Neighbour:
    """The load on a unit that is well, and how long it stood still at the most."""

    def __init__(self, bench, disk):
        self.disk = disk
        # No more than leaves an emulated guest time for everything else, and its end to others.
        self.load = fio.Running(disk, more=("--rate_iops=50", "--size=64m"))
        bench.watch(self.load.process)
        self.longest = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        done, since = None, time.monotonic()
        statistics = pathlib.Path("/sys/class/block") / self.disk.name / "stat"
        while not self.ended.wait(0.1):
            try:
                fields = statistics.read_text().split()
            except OSError:
                return
            now = fields[0], fields[4]
            if now != done:
                done, since = now, time.monotonic()
            self.longest = max(self.longest, time.monotonic() - since)

    def check(self):
        """Nothing failed, and it never stood still for long."""
        self.load.check_at_work()
        self.ended.set()
        self.thread.join()
        self.load.process.terminate()
        self.load.wait(20)
        print(f"the neighbour stood still for {self.longest:.1f} s at the most", flush=True)
        check(self.longest < PAUSE, f"the neighbour stood still for {self.longest:.1f} s")
        equal("errors of the neighbour", counters(self.disk)["errors"], 0)


class Transfer:
    """A megabyte on its way, from the queue of a processor."""

    def __init__(self, bench, disk, processor, place, data=None):
        self.what = f"{'read' if data is None else 'write'} by processor {processor}"
        self.file = pathlib.Path(f"/tmp/transfer-{processor}-{place}")
        if data is None:
            words = (f"if={disk.path}", f"of={self.file}", f"skip={place}", "iflag=direct")
        else:
            self.file.write_bytes(data)
            words = (f"if={self.file}", f"of={disk.path}", f"seek={place}", "oflag=direct", "conv=notrunc")
        self.errors = open(f"{self.file}.err", "w+b")
        self.process = start("taskset", "-c", processor, "dd", "bs=1M", "count=1", "status=none", *words, stderr=self.errors)
        bench.watch(self.process)

    def wait(self, limit):
        wait_until(f"{self.what} ends", lambda: self.process.poll() is not None, limit)
        self.errors.seek(0)
        return self.process.returncode, self.errors.read().decode()

    def why_failed(self, limit):
        """What it says when it fails. Its end may be long after: udev looks at a device anew when somebody who wrote it closes
        it, has to wait for the unit, and lets nobody close the device meanwhile."""

        def said():
            self.errors.seek(0)
            return self.errors.read().decode()

        wait_until(f"{self.what} fails", lambda: said().endswith("\n"), limit)
        return said()

    def check_done(self, limit):
        code, told = self.wait(limit)
        check(code == 0, f"{self.what}: {told}")
        return self.file.read_bytes()


def counters(disk):
    return daemon.answer("show", disk.path)["counters"]


def session():
    (found,) = daemon.answer("list")["sessions"]
    return found


def told(words):
    """How often the daemon's log says something."""
    return sum(words in line for line in daemon.LOG.read_text(errors="replace").splitlines())


def check_in_service():
    equal("session", (session()["state"], session()["channels"]), ("running", CHANNELS))


@case(limit=120, smoke=True)
def slow(bench):
    """Three times for a few seconds: requests wait, nothing fails, nobody is asked to end anything."""
    unit, neighbour = attach(bench)
    load = Neighbour(bench, neighbour)
    with open("/tmp/verified.txt", "w+b") as output:
        words = fio.arguments(unit, "sequential", 48 * CHUNK)
        verified = start(*words, "--rate=3m", stdout=output, stderr=output)
        bench.watch(verified)
        for _ in range(3):
            time.sleep(1)
            stop()
            try:
                time.sleep(0.5)
                before = counters(unit)
                time.sleep(3.5)
                check(verified.poll() is None, "fio ended while the unit stood still")
                equal("done while the unit stood still", counters(unit), before)
            finally:
                go_on()
        wait_until("fio ends", lambda: verified.poll() is not None, 90)
        output.seek(0)
        equal(f"exit code of fio\n{output.read().decode()}\n", verified.returncode, 0)
    load.check()
    equal("errors", counters(unit)["errors"], 0)
    equal("task management", told("task management"), 0)
    check_in_service()
    bench.detach()


@case(limit=150, full_limit=300, smoke=True)
def beyond_its_time(bench):
    """Longer than a command may take, on both processors: functions are not answered, the channels are made anew before they
    end, and the neighbour goes on. What waits is done when the unit goes on; after two minutes (long form) it fails."""
    unit, neighbour = attach(bench)
    old = pattern("old", 4 * CHUNK)
    unit.write(old)
    before = counters(unit)
    load = Neighbour(bench, neighbour)
    stop()
    began = time.monotonic()
    try:
        new = {place: pattern(f"new {place}", CHUNK) for place in PROCESSORS}
        writes = {place: Transfer(bench, unit, place, place, data) for place, data in new.items()}
        reads = {place + 2: Transfer(bench, unit, place, place + 2) for place in PROCESSORS}
        seen = {"aborts": 0, "resets": 0}

        def succeeded():
            for name in seen:
                channels = daemon.answer("show", unit.path)["channels"]
                seen[name] = max([seen[name], *(each[name] for each in channels)])
            return told("channel back") >= max(told("its channel is made anew"), len(PROCESSORS))

        wait_until("the channels are made anew", succeeded, LADDER + SUCCESSION)
        given_up = told("its channel is made anew")
        print(f"{given_up} channels anew after {time.monotonic() - began:.1f} s", flush=True)
        equal("functions of a channel", seen, {"aborts": 1, "resets": 1})
        equal("functions answered", told("task management answered"), 0)
        check(given_up <= CHANNELS, f"{given_up} channels given up")
        check_in_service()
        # Through the new channels, while the old ones are still open at the target.
        neighbour_data = pattern("neighbour", CHUNK)
        for processor in PROCESSORS:
            Transfer(bench, neighbour, processor, 250 + processor, neighbour_data).check_done(PAUSE)
            seen_data = Transfer(bench, neighbour, processor, 250 + processor).check_done(PAUSE)
            check_same("what the neighbour was given", seen_data, neighbour_data)
        if bench.full:
            for each in (*writes.values(), *reads.values()):
                why = each.why_failed(max(began + LONG - time.monotonic(), 1))
                check("severed" in why or "timed out" in why, f"{each.what} fails: {why}")
            print(f"all have failed after {time.monotonic() - began:.1f} s", flush=True)
        else:
            time.sleep(2)
            for each in (*writes.values(), *reads.values()):
                check(each.process.poll() is None, f"{each.what} has ended with {each.process.returncode}")
    finally:
        go_on()
    if bench.full:
        wait_until("a request is carried out", lambda: attempt_read(unit), 60)
        for each in (*writes.values(), *reads.values()):
            check(each.wait(60)[0] != 0, f"{each.what} failed and succeeded")
    else:
        for transfer in writes.values():
            transfer.check_done(20)
        for place, transfer in reads.items():
            check_same("what was read meanwhile", transfer.check_done(20), old[place * CHUNK : (place + 1) * CHUNK])
        check(told("result=complete") > 0, "no function is said to be complete")
        # A request of a megabyte each, and none counted twice.
        equal("writes", counters(unit)["writes"], before["writes"] + 2)
        equal("errors", counters(unit)["errors"], 0)
        for place, data in new.items():
            check_same("what was written meanwhile", unit.read(CHUNK, place * CHUNK), data)
    # Nothing that was given up is carried out over what is written now.
    last = pattern("last", 4 * CHUNK)
    unit.write(last)
    time.sleep(2)
    check_same("what was written last", unit.read(4 * CHUNK), last)
    load.check()
    check_in_service()
    fio.verify(unit, "mixed", 8 * CHUNK)
    bench.detach()


def attempt_read(disk):
    return attempt("dd", f"if={disk.path}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct", limit=60).code == 0


@case(limit=150, smoke=True)
def while_it_is_attached(bench):
    """A unit stands still when its partitions are read, beside one at work, with a single channel for both: the attach
    waits (where the kernel reads them before the device is there), nothing else does, and it ends when the unit goes on."""
    make_unit()
    line = target.line(initiator_ext=f"{EXT:x}", ch_count=1)
    neighbour = bench.attach(line, "--lun", "0")[0]
    load = Neighbour(bench, neighbour)
    stop()
    try:
        out = "/tmp/attach.json"
        with open(out, "wb") as output:
            command = start(daemon.PROGRAM, "attach", line, "--lun", LUN, "--json", stdout=output, stderr=output)
        bench.watch(command)
        time.sleep(5)
        waits = command.poll() is None
        print("the attach waits" if waits else "the attach does not wait", flush=True)
        asked = time.monotonic()
        equal("errors of the neighbour", counters(neighbour)["errors"], 0)
        check(time.monotonic() - asked < PAUSE / 2, "the daemon took long to answer meanwhile")
        wait_until("the channel is made anew", lambda: told("channel back") >= 1, LADDER + SUCCESSION)
        equal("channels given up", told("its channel is made anew"), 1)
        equal("session", (session()["state"], session()["channels"]), ("running", 1))
        equal("the attach waits still", command.poll() is None, waits)
    finally:
        go_on()
    wait_until("the attach ends", lambda: command.poll() is not None, 30)
    told_by_attach = pathlib.Path(out).read_text(errors="replace")
    equal(f"exit code of attach\n{told_by_attach}\n", command.returncode, 0)
    unit = by_lun(json.loads(told_by_attach.splitlines()[0])["devices"])[LUN]
    unit.check_works()
    load.check()
    equal("state", session()["state"], "running")
    bench.detach()


@case(limit=150)
def detached_by_force(bench):
    """While it stands still: detach refuses as it is in use, --force ends it in time, and the neighbour goes on."""
    unit, neighbour = attach(bench)
    data = pattern("before", 2 * CHUNK)
    unit.write(data)
    load = Neighbour(bench, neighbour)
    stop()
    try:
        under_way = [Transfer(bench, unit, place, place + 8, data[:CHUNK]) for place in PROCESSORS]
        time.sleep(1)
        refused = daemon.cli("detach", unit.path)
        equal(f"exit code of detach\n{refused.told()}\n", refused.code, 5)
        forced = daemon.cli("detach", "--force", unit.path, limit=DETACH_BOUND + 60)
        print(forced.told(), flush=True)
        equal(f"exit code of detach --force\n{forced.told()}\n", forced.code, 0)
        check(forced.seconds < DETACH_BOUND, forced.told())
        check("the unit does not answer" in forced.out + forced.err, forced.told())
        check(not unit.traces(), f"left: {unit.traces()}")
        for each in under_way:
            check(each.wait(10)[0] != 0, f"{each.what} ended well")
        wait_until("all channels are there", lambda: session()["channels"] == CHANNELS, 20)
        load.check()
    finally:
        go_on()
    equal("state", session()["state"], "running")
    unit = attach_again(bench)
    check_same("what was written before", unit.read(2 * CHUNK), data)
    unit.check_works()
    bench.detach()


def attach_again(bench):
    """LIO lets go of a session's old commands when the unit goes on."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return bench.attach(target.line(initiator_ext=f"{EXT:x}"), "--lun", str(LUN))[LUN]
        except Failed:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
