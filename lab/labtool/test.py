"""lab/test: every test there is, in one go. Its last line is `N passed, N failed`."""

import argparse
import contextlib
import os
import re
import subprocess
import time

from cases import registry

from . import options, pair, paths
from .guest import Guest, Settings
from .wire import EmulatorFault, GuestDied

OLDEST = "6.12"
CARGO = ("sh", "-c", '. lab/env; exec cargo "$@"', "cargo")
SPEED = ("test", "--locked", "-p", "srp-initiator", "-p", "ublk-frontend", "--bench", "speed", "--bench", "reactor", "--", "--test")
INSTRUCTIONS = ("bench", "-p", "srp-initiator", "--bench", "instructions", "--locked")
SUBNET = ("test", "-p", "srp-discovery", "--features", "model", "--test", "ibsim", "--locked", "--", "--ignored")
STEPS = (
    ("format", ("fmt", "--all", "--check"), {}),
    ("clippy", ("clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"), {}),
    ("unit and simulator tests", ("test", "--workspace", "--locked", "--no-fail-fast"), {}),
    ("discovery against opensm", SUBNET, {}),
    ("instructions of a command", INSTRUCTIONS, {}),
    ("other benchmarks, once", SPEED, {}),
    ("documentation", ("doc", "--workspace", "--no-deps", "--locked"), {"RUSTDOCFLAGS": "-D warnings"}),
)
TEST_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.M)
STEP_LIMIT = 2400
WEDGED = 3
MARGIN = 60  # for clearing up after a case
LAST_WORDS = """tail -n 60 /var/log/ublk-srp.log | grep -v ' libublk::'
echo w > /proc/sysrq-trigger; dmesg | grep -v 'receiving failed' | tail -n 80"""


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def add(self, name, ok, seconds, told=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok' if ok else 'FAILED'} {name} ({seconds:.0f} s)", flush=True)
        if not ok:
            print("\n".join("    " + line for line in told.splitlines()[-160:]), flush=True)


def step(tally, name, argv, environment=None):
    """A command on this host. Tests in its output are counted, else it counts as one."""
    paths.say(f"{name} ...")
    started = time.monotonic()
    process = subprocess.Popen(
        argv, cwd=paths.TREE, env=os.environ | (environment or {}), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = process.communicate(timeout=STEP_LIMIT)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        told = process.communicate()[0] + f"\ntime limit of {STEP_LIMIT} s reached"
    seconds = time.monotonic() - started
    counts = [(int(good), int(bad)) for good, bad in TEST_RESULT.findall(told)]
    good, bad = (sum(each) for each in zip(*counts)) if counts else (0, 0)
    if good and not bad and process.returncode == 0:
        tally.passed += good
        print(f"ok {name}: {good} tests ({seconds:.0f} s)", flush=True)
    elif bad:
        tally.passed += good
        tally.failed += bad
        print(f"FAILED {name}: {bad} of {good + bad} tests ({seconds:.0f} s)", flush=True)
        print("\n".join("    " + line for line in told.splitlines()[-200:]), flush=True)
    else:
        tally.passed += good
        tally.add(name, process.returncode == 0, seconds, told)
    return process.returncode == 0


class Bed:
    """Where cases run: a guest, or a pair of them, kept for the next case until it is of no more use."""

    def __init__(self, kernel, on_wire):
        self.settings = Settings(kernel=kernel)
        self.on_wire = on_wire
        self.stack = contextlib.ExitStack()
        self.guest = None

    def run(self, case, full):
        """(whether it passed, what it told). Once more in a fresh guest when the emulator failed."""
        try:
            return self._run(case, full)
        except EmulatorFault as error:
            paths.say(f"the emulator failed {case.name}, which is run again: {str(error)[-300:]}")
        try:
            return self._run(case, full)
        except EmulatorFault as error:
            return False, str(error)

    def _run(self, case, full):
        try:
            if self.guest is None:
                self._boot()
            limit = (case.full_limit if full else case.limit) + MARGIN
            argv = ["python3", "-B", "-m", "cases.run", case.name, *(["--full"] if full else [])]
            result = self.guest.run(argv, limit=limit, env={"PYTHONPATH": "/src/lab"})
            told = result.text
            if result.timed_out:
                told += f"\ntime limit of {limit} s reached\n" + self.guest.run(["sh", "-c", LAST_WORDS], 30).text
            if result.timed_out or result.code == WEDGED:
                self.end()
            return result.code == 0, told
        except GuestDied as error:
            self.end()
            if isinstance(error, EmulatorFault):
                raise
            return False, str(error)

    def _boot(self):
        if self.on_wire:
            self.guest = self.stack.enter_context(pair.boot(self.settings)).initiator
        else:
            self.guest = self.stack.enter_context(Guest.boot(self.settings))

    def end(self):
        self.guest = None
        self.stack.close()


def in_guests(tally, kernel, cases, full):
    for on_wire in (False, True):
        chosen = [case for case in cases if case.pair == on_wire]
        if not chosen:
            continue
        paths.say(f"{len(chosen)} cases on kernel {kernel}{', two guests on a wire' if on_wire else ''} ...")
        bed = Bed(kernel, on_wire)
        try:
            for case in chosen:
                started = time.monotonic()
                ok, told = bed.run(case, full)
                tally.add(f"{case.name} on {kernel}", ok, time.monotonic() - started, told)
        finally:
            bed.end()


def chosen_cases(chosen, kernel):
    """Without being asked for more, the oldest kernel gets the smoke only, without a wire."""
    smoke = kernel == OLDEST and not (chosen.full or chosen.only or chosen.kernel)
    every = [case for case in registry.all_cases() if not chosen.only or chosen.only in case.name]
    return [case for case in every if not smoke or (case.smoke and not case.pair)]


# The other peers are started by the benchmark's own short form.
COUNTED = ["--counted", "--short", "--no-limits", "--peers", "ublk-srp,ib_srp"]


def parser():
    parse = argparse.ArgumentParser(prog="lab/test", description=__doc__)
    parse.add_argument("--full", action="store_true", help="the long form: every case, on both kernels")
    parse.add_argument("--lab-only", action="store_true", help="only what runs in guests")
    parse.add_argument("--only", metavar="PATTERN", help="only cases whose name has this in it; implies --lab-only")
    parse.add_argument("--kernel", help="only on this kernel: newest, 6.12")
    return parse


def main(arguments):
    chosen = parser().parse_args(arguments)
    kernels = [chosen.kernel] if chosen.kernel else ["newest", OLDEST]
    if not any(chosen_cases(chosen, kernel) for kernel in kernels):
        raise SystemExit(f"no case has {chosen.only!r} in its name; their names are module/function, as in {registry.all_cases()[0].name}")
    options.end_on_signals()
    tally = Tally()
    if step(tally, "set-up of this host", ["lab/setup"]):
        if not (chosen.lab_only or chosen.only):
            for name, cargo, environment in STEPS:
                step(tally, name, [*CARGO, *cargo], environment)
        if step(tally, "release build", ["lab/build"]):
            for kernel in kernels:
                in_guests(tally, kernel, chosen_cases(chosen, kernel), chosen.full)
            if not chosen.only:
                step(tally, "benchmark, short form", ["lab/bench", "--short"])
                step(tally, "benchmark by instructions, short form", ["lab/bench", *COUNTED])
                step(tally, "growth, short form", ["lab/bench", "--scale", "--short"])
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 1 if tally.failed or not tally.passed else 0
