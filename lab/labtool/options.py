"""Command line options that several of the lab's commands share, and their surroundings."""

import pathlib
import signal
import sys

from .guest import Settings

SETUP_LIMIT = 180


def add_guest_options(parse):
    parse.add_argument("--kernel", default="newest", help="newest (default) or a version prefix such as 6.12")
    parse.add_argument("--memory", type=int, default=3072, metavar="MIB")
    parse.add_argument("--cpus", type=int, default=2)
    parse.add_argument("--out", type=pathlib.Path, help="host folder, writable at /out; logs are put there too")
    parse.add_argument("--share", type=pathlib.Path, help="host folder, read-only at /share")
    parse.add_argument("--append", default="", help="further kernel arguments")
    parse.add_argument("--pair", action="store_true", help="two guests on a wire: a target, and one that is used")
    return parse


def settings_of(options):
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    return Settings(
        kernel=options.kernel,
        memory=options.memory,
        cpus=options.cpus,
        out=options.out,
        share=options.share,
        append=options.append,
    )


def end_on_signals():
    """Turns the usual signals into an ordinary exit, so that guests and folders are cleaned up."""

    def leave(number, _frame):
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


class Output:
    """Where a command's output goes: to our own standard output, and to a file when results are kept."""

    def __init__(self, out=None):
        self.file = open(out / "output.log", "wb") if out else None

    def __call__(self, data):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if self.file:
            self.file.write(data)
            self.file.flush()
