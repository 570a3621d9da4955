"""lab/run: one command in a fresh guest, or in one of a pair of guests on a virtual wire."""

import argparse
import contextlib

from . import options, pair, paths
from .guest import Guest, GuestDied

NO_RESULT = 125


def parser():
    parse = argparse.ArgumentParser(prog="lab/run", description=__doc__)
    options.add_guest_options(parse)
    parse.add_argument("--time", type=float, default=600, metavar="S", help="limit for the command, default 600 s")
    parse.add_argument("--target", choices=("none", "default"), default="none", help="default: SRP target set up")
    parse.add_argument("command", nargs="+")
    return parse


def follow(guest, chosen):
    """Runs the command; results are collected whatever happens."""
    result = None
    try:
        result = guest.run(chosen.command, chosen.time, output=options.Output(chosen.out))
        if result.timed_out:
            paths.say(f"time limit of {chosen.time:g} s reached")
        return result.code
    finally:
        if chosen.out:
            guest.collect(chosen.out, blocked_tasks=result is None or result.timed_out)


def main(arguments):
    chosen = parser().parse_args(arguments)
    options.end_on_signals()
    settings = options.settings_of(chosen)
    try:
        with contextlib.ExitStack() as stack:
            if chosen.pair:
                both = stack.enter_context(pair.boot(settings))
                paths.say(f"both guests up after {both.boot_seconds:.1f} s")
                try:
                    return follow(both.initiator, chosen)
                finally:
                    if chosen.out:
                        both.target.collect(chosen.out / "target")
            guest = stack.enter_context(Guest.start(settings))
            guest.wait()
            paths.say(f"guest up after {guest.boot_seconds:.1f} s")
            if chosen.target == "default":
                guest.check(["sh", "-c", "fabric-up && target-up"], options.SETUP_LIMIT)
            return follow(guest, chosen)
    except GuestDied as error:
        paths.say(error)
        return NO_RESULT
