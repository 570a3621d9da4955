"""A running guest: boot it, run commands in it, cut its cable, end it.

    with Guest.boot(kernel="6.12") as guest:
        result = guest.run(["uname", "-r"], limit=30)
        print(result.code, result.stdout)
"""

import contextlib
import fcntl
import json
import pathlib
import signal
import subprocess
import time
from dataclasses import dataclass, field

from . import image as images
from . import paths, qemu
from .wire import Connection, EmulatorFault, GuestDied, TimeLimit

BOOT_LIMIT = 240
GRACE = 5
COLLECT_PORT = qemu.AGENT_PORTS - 1
TIMED_OUT = 124
KERNEL_ARGUMENTS = (
    "console=hvc0 loglevel=5 panic=-1 net.ifnames=0 mitigations=off nowatchdog audit=0 random.trust_cpu=on "
    "tsc=reliable no_timer_check cryptomgr.notests"
)


@dataclass
class Settings:
    kernel: str = "newest"
    memory: int = 3072
    cpus: int = 2
    out: pathlib.Path = None  # shared writable as /out
    share: pathlib.Path = None  # shared read-only as /share
    network: list = field(default_factory=list)  # QEMU arguments for the guest's wire
    keep: int = None  # seconds the guest may outlive the process that booted it
    append: str = ""
    counted: bool = False  # the guest's clock counts instructions


@dataclass
class Result:
    code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False

    @property
    def text(self):
        return self.stdout.decode(errors="replace")


def _shared(path, tag, readonly):
    mode = "on" if readonly else "off"
    path = str(path).replace(",", ",,")
    return ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap,readonly={mode}"]


def _command(settings, folder, image):
    release = image.kernel(settings.kernel)
    accelerator = qemu.COUNTED if settings.counted else qemu.accelerator(image)
    command = qemu.base_command(accelerator, image.boot_files(release), settings.cpus, settings.memory)
    command += [
        "-append", f"{KERNEL_ARGUMENTS} {settings.append}",
        "-drive", f"file={image.root},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-device", "virtio-rng-pci",
        "-device", f"virtio-serial-pci,max_ports={qemu.AGENT_PORTS + 3}",
        "-chardev", f"file,id=console,path={folder}/console.log",
        "-device", "virtconsole,chardev=console",
        "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
    ]  # fmt: skip
    # For lab/guest/on-target, see service.py.
    command += ["-chardev", f"socket,id=host,path={folder}/host,server=on,wait=off"]
    command += ["-device", "virtserialport,chardev=host,name=host"]
    for number in range(qemu.AGENT_PORTS):
        command += ["-chardev", f"socket,id=agent{number},path={folder}/agent.{number},server=on,wait=off"]
        command += ["-device", f"virtserialport,chardev=agent{number},name=lab.{number}"]
    command += _shared(paths.TREE, "src", True)
    if paths.release_dir():
        command += _shared(paths.release_dir(), "release", True)
    if settings.out:
        command += _shared(pathlib.Path(settings.out).resolve(), "out", False)
    if settings.share:
        command += _shared(pathlib.Path(settings.share).resolve(), "share", True)
    return command + (settings.network or ["-nic", "none"])


class Guest:
    def __init__(self, machine, settings=None):
        self.machine = machine
        self.folder = machine.folder
        self.settings = settings
        self.boot_seconds = None

    @classmethod
    def start(cls, settings=None, folder=None, **overrides):
        """Starts QEMU and returns at once; wait() before the first command."""
        settings = settings or Settings(**overrides)
        image = images.get()
        folder = folder or qemu.new_folder()
        try:
            guest = cls(qemu.Machine.start(folder, _command(settings, folder, image), settings.keep), settings)
        except BaseException:
            qemu.remove_folder(folder)
            raise
        guest.started = time.monotonic()
        return guest

    def wait(self):
        """Returns when the guest's agent answers."""
        deadline = self.started + BOOT_LIMIT
        try:
            while not (self.folder / "agent.0").exists():
                if not self.machine.alive() or time.monotonic() > deadline:
                    raise GuestDied()
                time.sleep(0.05)
            with self.connection(0, deadline - time.monotonic()):
                pass
        except (GuestDied, TimeLimit):
            died = self._died("the guest did not boot")
            self.stop()
            raise died from None
        self.boot_seconds = time.monotonic() - self.started
        return self

    def _died(self, what):
        kind = EmulatorFault if self.machine.emulator_fault() else GuestDied
        return kind(f"{what}:\n{self.machine.console_tail()}")

    @classmethod
    def boot(cls, settings=None, folder=None, **overrides):
        return cls.start(settings, folder, **overrides).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.machine.kill()
        qemu.remove_folder(self.folder)

    def set_link(self, up):
        """Plugs or pulls the cable of a guest on a wire."""
        self.machine.monitor("set_link", name="nic", up=up)

    @contextlib.contextmanager
    def connection(self, port=None, timeout=30):
        """A connection to one of the agent's ports, or to the first free one when port is None."""
        candidates = [port] if port is not None else range(COLLECT_PORT)
        for number in candidates:
            lock = open(self.folder / f"lock.{number}", "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.close()
        else:
            raise RuntimeError(f"all {len(candidates)} command channels of the guest are in use")
        try:
            try:
                connection = Connection(self.folder / f"agent.{number}", timeout)
            except OSError:
                raise GuestDied() from None
            with contextlib.closing(connection):
                yield connection
        finally:
            lock.close()

    def run(self, argv, limit=None, env=None, output=None, errors=None, stdin=None, port=None, cwd=None):
        """Runs a command. output and errors are called with each piece as it comes; without errors, the command's
        standard error joins its standard output. After the time limit the command is killed and the code is 124."""
        collected = {1: [], 2: []}
        sinks = {1: output or collected[1].append, 2: errors or collected[2].append}
        split = errors is not None
        order = {"exec": list(argv), "env": env or {}, "split": split, "stdin": stdin is not None, "cwd": cwd}
        deadline = time.monotonic() + (limit or 10 * 365 * 86400)
        code, timed_out = None, False
        try:
            with self.connection(port) as connection:
                connection.order(order)
                if stdin is not None:
                    connection.order({"in": len(stdin)}, stdin)
                    connection.order({"eof": True})
                for number in (None, signal.SIGTERM, signal.SIGKILL):
                    if number:
                        timed_out = True
                        connection.order({"kill": int(number)})
                    try:
                        code = self._follow(connection, deadline, sinks)
                        break
                    except TimeLimit:
                        deadline = time.monotonic() + GRACE
        except GuestDied:
            raise self._died("the guest died; the end of its console") from None
        except TimeLimit:
            raise GuestDied(f"the guest does not answer; its console:\n{self.machine.console_tail()}") from None
        return Result(TIMED_OUT if timed_out else code, b"".join(collected[1]), b"".join(collected[2]), timed_out)

    @staticmethod
    def _follow(connection, deadline, sinks):
        while True:
            header, payload = connection.message(deadline)
            if "out" in header:
                sinks[header["fd"]](payload)
            elif "exit" in header:
                return header["exit"]
            elif "error" in header:
                raise RuntimeError(header["error"])

    def check(self, argv, limit=120, **kwargs):
        """run(), with an error for any code but 0."""
        result = self.run(argv, limit, **kwargs)
        if result.code:
            raise subprocess.CalledProcessError(result.code, argv, result.stdout, result.stderr)
        return result

    def collect(self, into, blocked_tasks=False):
        """Brings dmesg, the console and the daemon's logs to a folder on the host."""
        into = pathlib.Path(into)
        into.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            (into / "console.log").write_bytes((self.folder / "console.log").read_bytes())
        ask = "echo w > /proc/sysrq-trigger; " if blocked_tasks else ""
        try:
            messages = self.run(["sh", "-c", ask + "dmesg"], 20, port=COLLECT_PORT)
            (into / "dmesg.txt").write_bytes(messages.stdout)
            self._collect_logs(into)
        except (GuestDied, RuntimeError) as error:
            paths.say("could not collect everything:", str(error).splitlines()[0])

    def _collect_logs(self, into):
        list_logs = "import glob, json; print(json.dumps(glob.glob('/var/log/**/*.log', recursive=True)))"
        listing = self.run(["python3", "-c", list_logs], 20, port=COLLECT_PORT)
        for path in json.loads(listing.stdout or b"[]"):
            content = self.run(["cat", path], 60, port=COLLECT_PORT).stdout
            if content:
                (into / pathlib.PurePath(path).name).write_bytes(content)
