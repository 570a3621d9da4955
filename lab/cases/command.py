"""Running commands with a time limit, and saying what is wrong with what they did."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass


class Failed(Exception):
    """A case found something that is not as it should be."""


def check(condition, message):
    if not condition:
        raise Failed(message)


def equal(what, found, wanted):
    check(found == wanted, f"{what}: found {found!r}, wanted {wanted!r}")


def wait_until(what, condition, limit):
    """Waits for something to become true; returns the seconds it took."""
    started = time.monotonic()
    while not condition():
        check(time.monotonic() - started < limit, f"not within {limit} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


@dataclass
class Outcome:
    argv: list
    code: int
    out: str
    err: str
    seconds: float

    def told(self):
        return f"$ {' '.join(self.argv)}\n{self.out}{self.err}[exit code {self.code} after {self.seconds:.1f} s]"


def start(*argv, **options):
    """A process in a session of its own, so that all of it can be ended."""
    return subprocess.Popen([str(word) for word in argv], start_new_session=True, stdin=subprocess.DEVNULL, **options)


def end(process):
    """Ends a process and its children; one that cannot be killed is left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass


def attempt(*argv, limit=60, stdin=None):
    """Runs a command to its end, whatever its exit code."""
    argv = [str(word) for word in argv]
    started = time.monotonic()
    process = subprocess.Popen(
        argv, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, err = process.communicate(stdin.encode() if stdin is not None else None, limit)
    except subprocess.TimeoutExpired:
        stack = kernel_stacks(process.pid)
        end(process)
        raise Failed(f"$ {' '.join(argv)}\ndid not end within {limit} s\n{stack}") from None
    seconds = time.monotonic() - started
    return Outcome(argv, process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), seconds)


def run(*argv, limit=60, stdin=None):
    """attempt(), for commands that have to succeed."""
    outcome = attempt(*argv, limit=limit, stdin=stdin)
    check(outcome.code == 0, outcome.told())
    return outcome


def kernel_stacks(pid):
    """Where in the kernel the threads of a process are."""
    text = ""
    try:
        for task in sorted(os.listdir(f"/proc/{pid}/task")):
            with open(f"/proc/{pid}/task/{task}/comm") as comm, open(f"/proc/{pid}/task/{task}/stack") as stack:
                text += f"{comm.read().strip()} ({task}):\n{stack.read()}"
    except OSError:
        pass
    return text
