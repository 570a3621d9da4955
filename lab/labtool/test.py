"""lab/test: every test there is, in one go. Its last line is `N passed, N failed`."""

import argparse
import os
import re
import subprocess
import time

from cases import registry

from . import options, paths
from .guest import Guest, GuestDied

OLDEST = "6.12"
SHELL = ["sh", "-c"]
CARGO = '. lab/env; exec cargo "$@"'
STEPS = (
    ("format", ("fmt", "--all", "--check"), {}),
    ("clippy", ("clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"), {}),
    ("unit and simulator tests", ("test", "--workspace", "--locked", "--no-fail-fast"), {}),
    ("documentation", ("doc", "--workspace", "--no-deps", "--locked"), {"RUSTDOCFLAGS": "-D warnings"}),
)
TEST_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.M)
WEDGED = 3


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def add(self, name, ok, seconds, told=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok' if ok else 'FAILED'} {name} ({seconds:.0f} s)", flush=True)
        if not ok:
            print("\n".join("    " + line for line in told.splitlines()[-120:]), flush=True)


def step(tally, name, argv, environment=None):
    """A command on this host. Tests in its output are counted, else it counts as one."""
    paths.say(f"{name} ...")
    started = time.monotonic()
    done = subprocess.run(
        argv, cwd=paths.TREE, env=os.environ | (environment or {}), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    seconds = time.monotonic() - started
    counts = [(int(good), int(bad)) for good, bad in TEST_RESULT.findall(done.stdout)]
    tally.passed += sum(good for good, _ in counts)
    failed = sum(bad for _, bad in counts)
    tally.failed += failed
    if counts and done.returncode == 0:
        print(f"ok {name}: {sum(good for good, _ in counts)} tests ({seconds:.0f} s)", flush=True)
    elif counts and failed:
        print("\n".join(done.stdout.splitlines()[-200:]), flush=True)
        print(f"FAILED {name}: {failed} tests ({seconds:.0f} s)", flush=True)
    else:
        tally.add(name, done.returncode == 0, seconds, done.stdout)
    return done.returncode == 0


def in_guests(tally, kernel, cases, full):
    """The cases in one guest that stays warm; one that is of no more use is replaced."""
    guest = None
    paths.say(f"{len(cases)} cases on kernel {kernel} ...")
    try:
        for case in cases:
            started = time.monotonic()
            name = f"{case.name} on {kernel}"
            try:
                if guest is None:
                    guest = Guest.boot(kernel=kernel)
                limit = (case.full_limit if full else case.limit) + 60
                argv = ["python3", "-B", "-m", "cases.run", case.name, *(["--full"] if full else [])]
                result = guest.run(argv, limit=limit, env={"PYTHONPATH": "/src/lab"})
            except GuestDied as error:
                tally.add(name, False, time.monotonic() - started, str(error))
                if guest:
                    guest.stop()
                guest = None
                continue
            told = result.text + (f"\ntime limit of {limit} s reached" if result.timed_out else "")
            tally.add(name, result.code == 0, time.monotonic() - started, told)
            if result.code == WEDGED or result.timed_out:
                guest.stop()
                guest = None
    finally:
        if guest:
            guest.stop()


def parser():
    parse = argparse.ArgumentParser(prog="lab/test", description=__doc__)
    parse.add_argument("--full", action="store_true", help="the long form: every case, on both kernels")
    parse.add_argument("--lab-only", action="store_true", help="only what runs in guests")
    parse.add_argument("--only", metavar="PATTERN", help="only cases whose name has this in it; implies --lab-only")
    parse.add_argument("--kernel", help="only on this kernel: newest, 6.12")
    return parse


def main(arguments):
    chosen = parser().parse_args(arguments)
    options.end_on_signals()
    tally = Tally()
    if not step(tally, "set-up of this host", ["lab/setup"]):
        print("0 passed, 1 failed")
        return 1
    if not (chosen.lab_only or chosen.only):
        for name, cargo, environment in STEPS:
            step(tally, name, [*SHELL, CARGO, "cargo", *cargo], environment)
    if step(tally, "release build", ["lab/build"]):
        cases = [case for case in registry.all_cases() if not chosen.only or chosen.only in case.name]
        for kernel in [chosen.kernel] if chosen.kernel else ["newest", OLDEST]:
            short = kernel == OLDEST and not (chosen.full or chosen.only or chosen.kernel)
            chosen_cases = [case for case in cases if case.smoke or not short]
            if not (chosen.full or chosen.only):
                chosen_cases = [case for case in chosen_cases if case.name not in registry.LONG]
            in_guests(tally, kernel, chosen_cases, chosen.full)
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 1 if tally.failed or not tally.passed else 0
