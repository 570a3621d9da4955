"""lab/run: one command in a fresh guest, or in one of a pair of guests on a virtual wire."""

import argparse
import contextlib
import pathlib
import signal
import sys

from . import paths, pair
from .guest import Guest, GuestDied, Settings

SETUP_LIMIT = 180


def parser():
    parse = argparse.ArgumentParser(prog="lab/run", description=__doc__)
    parse.add_argument("--kernel", default="newest", help="newest (default) or a version prefix such as 6.12")
    parse.add_argument("--time", type=float, default=600, metavar="S", help="limit for the command, default 600 s")
    parse.add_argument("--out", type=pathlib.Path, help="folder for logs and for what the command puts in /out")
    parse.add_argument("--memory", type=int, default=3072, metavar="MIB")
    parse.add_argument("--cpus", type=int, default=2)
    parse.add_argument("--target", choices=("none", "default"), default="none", help="default: set up the SRP target")
    parse.add_argument("--share", type=pathlib.Path, help="a host folder, read-only at /share")
    parse.add_argument("--pair", action="store_true", help="target on a guest of its own; the command runs on the other")
    parse.add_argument("command", nargs="+")
    return parse


def settings_of(options):
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    return Settings(
        kernel=options.kernel, memory=options.memory, cpus=options.cpus, out=options.out, share=options.share
    )


class Output:
    """Where a command's output goes: to our own standard output, and to a file when results are kept."""

    def __init__(self, out):
        self.file = open(out / "output.log", "wb") if out else None

    def __call__(self, data):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if self.file:
            self.file.write(data)
            self.file.flush()


def end_on_signals():
    """Turns the usual signals into an ordinary exit, so that guests and folders are cleaned up."""

    def leave(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def prepare(guest, target):
    if target != "none":
        guest.check(["sh", "-c", "fabric-up && target-up"], SETUP_LIMIT)


def follow(guest, options):
    """Runs the command; results are collected whatever happens."""
    result = None
    try:
        result = guest.run(options.command, options.time, output=Output(options.out))
        if result.timed_out:
            paths.say(f"time limit of {options.time:g} s reached")
        return result.code
    finally:
        if options.out:
            guest.collect(options.out, blocked_tasks=result is None or result.timed_out)


def main(arguments):
    options = parser().parse_args(arguments)
    end_on_signals()
    settings = settings_of(options)
    try:
        with contextlib.ExitStack() as stack:
            if options.pair:
                guest, other = stack.enter_context(pair.boot(settings))
                code = follow(guest, options)
                if options.out:
                    other.collect(options.out / "target")
                return code
            guest = stack.enter_context(Guest.start(settings))
            guest.wait()
            paths.say(f"guest up after {guest.boot_seconds:.1f} s")
            prepare(guest, options.target)
            return follow(guest, options)
    except GuestDied as error:
        paths.say(error)
        return 125
