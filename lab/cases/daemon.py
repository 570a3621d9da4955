"""The daemon under test and its command line."""

import json
import os
import pathlib
import signal
import socket
import subprocess

from .command import Failed, attempt, check, kernel_stacks, run, start, wait_until

PROGRAM = "ublk-srp"
SOCKET = "/run/ublk-srp/control.sock"
LOG = pathlib.Path("/var/log/ublk-srp.log")
START_LIMIT = 20
STOP_LIMIT = 20


def cli(*words, **options):
    """One command of ublk-srp, whatever its exit code."""
    return attempt(PROGRAM, *words, **options)


def answer(*words, **options):
    """One command of ublk-srp that has to succeed, its result taken from --json."""
    return json.loads(run(PROGRAM, *words, "--json", **options).out.splitlines()[0])


def call(method, **params):
    """A method of the control socket that the command line has no word for."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(SOCKET)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        connection.sendall(json.dumps(request).encode() + b"\n")
        answered = json.loads(connection.makefile().readline())
    check("result" in answered, f"{method}: {answered}")
    return answered["result"]


def refusal(outcome):
    """The error line of a command that was given --json."""
    for line in outcome.out.splitlines():
        entry = json.loads(line)
        if "error" in entry:
            return entry["error"]
    raise Failed("no error in the JSON output\n" + outcome.told())


class Daemon:
    def __init__(self, *options):
        with open(LOG, "ab") as log:
            self.process = start(PROGRAM, "daemon", *options, stdout=log, stderr=log)
        wait_until("the daemon answers", self._ready, START_LIMIT)

    def _ready(self):
        check(self.running(), f"the daemon ended with exit code {self.process.returncode}")
        return os.path.exists(SOCKET) and cli("status").code == 0

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def end(self, limit=STOP_LIMIT):
        """Asks it to end, as systemd does."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"the daemon did not end within {limit} s\n{kernel_stacks(self.pid)}") from None
        check(self.process.returncode == 0, f"the daemon ended with exit code {self.process.returncode}")

    def kill(self, limit=STOP_LIMIT):
        self.process.kill()
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"the killed daemon is there after {limit} s\n{kernel_stacks(self.pid)}") from None

    def threads(self):
        """Names of its threads, the kernel's workers for its io_uring included."""
        names = []
        for comm in pathlib.Path(f"/proc/{self.pid}/task").glob("*/comm"):
            try:
                names.append(comm.read_text().strip())
            except OSError:
                pass
        return names

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_kib(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])
