"""Runs commands for the lab inside a guest. Process 1, so it also collects orphans.

Each virtio-serial port named lab.N carries one command at a time. The host's end sends JSON lines:
  {"hello": nonce}                                          answered with the same; older output is void
  {"exec": [argv...], "env": {}, "cwd": "/", "pty": [rows, columns] or null, "stdin": bool, "split": bool}
  {"in": N} and N bytes, {"eof": true}, {"window": [rows, columns]}, {"kill": signal}
and gets {"out": N, "fd": 1 or 2} and N bytes, then {"exit": code} or {"error": text}.
When the host's end goes away its command is killed.
"""

import errno
import fcntl
import glob
import json
import os
import select
import signal
import struct
import termios
import time

BUILT = "/opt/ublk-srp/ublk-srp"
INSTALLED = "/usr/local/bin/ublk-srp"
CHUNK = 65536


def install_program():
    """Puts the program built on the host on PATH: a copy, so that a rebuild leaves running ones alone."""
    try:
        built = os.stat(BUILT)
    except OSError:
        return
    try:
        installed = os.stat(INSTALLED)
        if (installed.st_mtime_ns, installed.st_size) == (built.st_mtime_ns, built.st_size):
            return
    except OSError:
        pass
    with open(BUILT, "rb") as source, open(INSTALLED + ".new", "wb") as target:
        while data := source.read(1 << 20):
            target.write(data)
    os.chmod(INSTALLED + ".new", 0o755)
    os.utime(INSTALLED + ".new", ns=(built.st_mtime_ns, built.st_mtime_ns))
    os.rename(INSTALLED + ".new", INSTALLED)


def set_window(fd, size):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))


class Command:
    """A running command: its process, what it writes and where its input goes."""

    def __init__(self, order):
        install_program()
        environment = dict(os.environ, **order.get("env", {}))
        outputs, child_ends = [], []
        self.input = None
        if order.get("pty"):
            master, child = os.openpty()
            set_window(master, order["pty"])
            outputs, child_ends = [(master, 1)], [child] * 3
            self.input = master
        else:
            if order.get("stdin"):
                stdin, self.input = os.pipe()
            else:
                stdin = os.open("/dev/null", os.O_RDONLY)
            read, write = os.pipe()
            outputs, child_ends = [(read, 1)], [stdin, write, write]
            if order.get("split"):
                read, child_ends[2] = os.pipe()
                outputs.append((read, 2))
        self.outputs = dict(outputs)
        self.pid = os.fork()
        if self.pid == 0:
            self._become(order, environment, child_ends)
        for fd in set(child_ends):
            os.close(fd)
        for fd in self.outputs:
            os.set_blocking(fd, False)

    @staticmethod
    def _become(order, environment, ends):
        try:
            os.setsid()
            if order.get("pty"):
                fcntl.ioctl(ends[0], termios.TIOCSCTTY, 0)
            for number, fd in enumerate(ends):
                os.dup2(fd, number)
            os.closerange(3, 256)
            for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.chdir(order.get("cwd") or "/root")
            os.execvpe(order["exec"][0], order["exec"], environment)
        except OSError as error:
            os.write(2, f"{order['exec'][0]}: {error.strerror}\n".encode())
            os._exit(127 if error.errno == errno.ENOENT else 126)
        finally:
            os._exit(126)

    def kill(self, number):
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def close_input(self):
        if self.input is not None and self.input not in self.outputs:
            os.close(self.input)
        self.input = None

    def close(self):
        self.close_input()
        for fd in self.outputs:
            os.close(fd)
        self.outputs = {}


class Port:
    """One virtio-serial port and the command that runs on it."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR)
        self.pending = b""
        self.command = None

    def connected(self):
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        return not any(events & select.POLLHUP for _, events in poller.poll(0))

    def send(self, header, payload=b""):
        data = json.dumps(header).encode() + b"\n" + payload
        while data:
            data = data[os.write(self.fd, data):]

    def hang_up(self):
        self.pending = b""
        if self.command:
            self.command.kill(signal.SIGKILL)
            self.command.close()
            self.command = None

    def readable(self):
        data = os.read(self.fd, CHUNK)
        if not data:
            return self.hang_up()
        self.pending += data
        while b"\n" in self.pending:
            line, rest = self.pending.split(b"\n", 1)
            try:
                order = json.loads(line)
            except ValueError:
                order = {}
            size = order.get("in", 0)
            if len(rest) < size:
                return None
            payload, self.pending = rest[:size], rest[size:]
            self.obey(order, payload)
        return None

    def obey(self, order, payload):
        command = self.command
        if "hello" in order:
            self.hang_up()
            self.send(order)
        elif "exec" in order:
            try:
                self.command = Command(order)
            except OSError as error:
                self.send({"error": str(error)})
        elif command and payload and command.input is not None:
            try:
                os.write(command.input, payload)
            except OSError:
                command.close_input()
        elif command and "eof" in order:
            command.close_input()
        elif command and "window" in order and command.input is not None:
            set_window(command.input, order["window"])
        elif command and "kill" in order:
            command.kill(order["kill"])

    def output(self, fd):
        """Passes on what the command wrote; False when there is nothing (more) to read."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.send({"out": len(data), "fd": self.command.outputs[fd]}, data)
            return True
        if fd != self.command.input:
            os.close(fd)
            del self.command.outputs[fd]
        return False

    def exited(self, code):
        for fd in list(self.command.outputs):
            while self.output(fd):
                pass
        self.command.close()
        self.command = None
        self.send({"exit": code})


def reap(ports):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for port in ports:
            if port.command and port.command.pid == pid:
                code = os.waitstatus_to_exitcode(status)
                port.exited(code if code >= 0 else 128 - code)


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    ports = []
    for name in sorted(glob.glob("/sys/class/virtio-ports/*/name")):
        with open(name) as file:
            if file.read().startswith("lab."):
                ports.append(Port("/dev/" + name.split("/")[-2]))

    idle = set()
    while True:
        idle = {port for port in ports if not port.connected()}
        for port in idle:
            port.hang_up()
        poller = select.poll()
        poller.register(wake_read, select.POLLIN)
        readers = {}
        for port in ports:
            if port in idle:
                continue
            poller.register(port.fd, select.POLLIN)
            readers[port.fd] = port
            if port.command:
                for fd in port.command.outputs:
                    poller.register(fd, select.POLLIN)
                    readers[fd] = port
        for fd, events in poller.poll(200):
            port = readers.get(fd)
            if fd == wake_read:
                os.read(wake_read, CHUNK)
            elif fd == port.fd:
                if events & select.POLLIN:
                    port.readable()
            elif port.command and fd in port.command.outputs:
                if not port.output(fd) and port.command and fd == port.command.input:
                    time.sleep(0.01)
        reap(ports)


main()
