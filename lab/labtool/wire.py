"""The host's end of the protocol spoken by lab/guest/agent.py: one command at a time per connection."""

import json
import secrets
import select
import socket
import time


class GuestDied(Exception):
    """The guest went away while a command ran. The text holds the end of its console."""


class EmulatorFault(GuestDied):
    """The same, for no fault of the guest's: the kernel patches its own code behind a breakpoint, and an emulated
    processor ran into that when it was gone already. It happens once in some hundred boots, on a busy host."""


class TimeLimit(Exception):
    """A command did not end in its time."""


class Connection:
    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.pending = bytearray()
        self._greet(time.monotonic() + timeout)

    def close(self):
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()

    def _greet(self, deadline):
        """Skips whatever an earlier command left behind in the channel."""
        nonce = {"hello": secrets.token_hex(8)}
        self.order(nonce)
        wanted = json.dumps(nonce).encode() + b"\n"
        while True:
            self._fill(deadline)
            position = self.pending.find(wanted)
            if position >= 0:
                del self.pending[: position + len(wanted)]
                return

    def order(self, header, payload=b""):
        self.socket.sendall(json.dumps(header).encode() + b"\n" + payload)

    def _fill(self, deadline):
        self.socket.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self.socket.recv(1 << 16)
        except (TimeoutError, socket.timeout):
            raise TimeLimit() from None
        except ConnectionError:
            data = b""
        if not data:
            raise GuestDied()
        self.pending += data

    def ready(self):
        """Whether a message is here already, at least in part."""
        return bool(self.pending) or bool(select.select([self.socket], [], [], 0)[0])

    def message(self, deadline):
        """The next (header, payload) from the guest."""
        while b"\n" not in self.pending:
            self._fill(deadline)
        line, _, _ = self.pending.partition(b"\n")
        header = json.loads(line)
        begin, size = len(line) + 1, header.get("out", 0)
        while len(self.pending) < begin + size:
            self._fill(deadline)
        payload = bytes(self.pending[begin : begin + size])
        del self.pending[: begin + size]
        return header, payload
