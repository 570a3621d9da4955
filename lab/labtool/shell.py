"""lab/shell: a prompt in a guest with the program installed and a target ready."""

import argparse
import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty

from . import options, pair, paths
from .guest import Guest, GuestDied

FOREVER = 10 * 365 * 86400
WELCOME = """An SRP target is up; what an initiator has to know is in /run/lab/target.env. "exit" ends the guest.
"""


def window(fd):
    size = os.get_terminal_size(fd)
    return [size.lines, size.columns]


@contextlib.contextmanager
def raw_terminal(fd):
    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def interact(guest, argv):
    """Runs a command with our terminal, or with our standard input when that is no terminal."""
    keyboard = sys.stdin.fileno()
    is_terminal = os.isatty(keyboard)
    order = {"exec": argv, "env": {"TERM": os.environ.get("TERM", "vt100")}}
    order |= {"pty": window(keyboard)} if is_terminal else {"stdin": True}
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(guest.connection())
        connection.order(order)
        if is_terminal:
            stack.enter_context(raw_terminal(keyboard))
            signal.signal(signal.SIGWINCH, lambda *_: connection.order({"window": window(keyboard)}))
            stack.callback(signal.signal, signal.SIGWINCH, signal.SIG_DFL)
        sources = [keyboard, connection]
        while True:
            ready = [connection] if connection.pending else select.select(sources, [], [])[0]
            if keyboard in ready:
                data = os.read(keyboard, 1024)
                connection.order(*(({"in": len(data)}, data) if data else ({"eof": True},)))
                if not data:
                    sources.remove(keyboard)
            if connection in ready:
                header, payload = connection.message(time.monotonic() + FOREVER)
                if "out" in header:
                    os.write(1, payload)
                else:
                    return header.get("exit", 1)


def parser():
    parse = argparse.ArgumentParser(prog="lab/shell", description=__doc__)
    options.add_guest_options(parse)
    parse.add_argument("--target", choices=("none", "default"), default="default")
    return parse


def main(arguments):
    chosen = parser().parse_args(arguments)
    options.end_on_signals()
    settings = options.settings_of(chosen)
    try:
        with contextlib.ExitStack() as stack:
            if chosen.pair:
                guest = stack.enter_context(pair.boot(settings)).initiator
            else:
                guest = stack.enter_context(Guest.boot(settings))
                if chosen.target == "default":
                    guest.check(["sh", "-c", "fabric-up && target-up"], options.SETUP_LIMIT)
            if chosen.target == "default":
                sys.stderr.write(WELCOME)
            return interact(guest, ["bash", "-l"])
    except GuestDied as error:
        paths.say("the guest is gone", error)
        return 0
