"""Starts and ends QEMU processes: the command line, the accelerator, and the monitor (QMP)."""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import paths

AGENT_PORTS = 6
PR_SET_PDEATHSIG = 1
PROBE_SECONDS = 12
_libc = ctypes.CDLL(None)


def base_command(accelerator, release_files, cpus, memory):
    kernel, initrd = release_files
    return [
        "qemu-system-x86_64", "-machine", "pc", *accelerator, "-smp", str(cpus), "-m", str(memory),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", str(kernel), "-initrd", str(initrd),
    ]  # fmt: skip


# Without ERMS: kernels with it copy to and from user memory by `rep movsb`, which a processor does 32 bytes and more at
# a time and TCG one. Copies would cost eight times what the rest of the guest suggests.
TCG = ["-accel", "tcg,thread=multi", "-cpu", "max,-erms"]
KVM = ["-accel", "kvm", "-cpu", "host"]
# The processors take turns, and the guest's clock counts their instructions, a nanosecond each: the same load takes the
# same time however busy the host is.
COUNTED = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max,-erms"]


def accelerator(image):
    """KVM where a guest really boots with it, else TCG. The answer is kept per host and guest kernel."""
    chosen = os.environ.get("UBLK_SRP_LAB_ACCEL")
    if chosen:
        return {"kvm": KVM, "tcg": TCG}[chosen]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    answer = paths.cache() / "kvm.json"
    question = [os.uname().release, image.releases[0]]
    if answer.exists():
        known = json.loads(answer.read_text())
        if known["question"] == question:
            return KVM if known["works"] else TCG
    paths.say("trying whether guests boot with KVM here")
    works = _kvm_boots(image)
    paths.say("KVM works" if works else "KVM does not work here, guests are emulated (TCG)")
    answer.write_text(json.dumps({"question": question, "works": works}))
    return KVM if works else TCG


def _kvm_boots(image):
    """Boots the newest kernel without a root disk; its init's first words on the console are the proof."""
    command = base_command(KVM, image.boot_files(image.releases[0]), 1, 1024)
    command += ["-append", "console=ttyS0 rdinit=/bin/busybox -- echo lab-kvm-boots", "-serial", "stdio"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    deadline = time.monotonic() + PROBE_SECONDS
    os.set_blocking(process.stdout.fileno(), False)
    seen = b""
    try:
        while time.monotonic() < deadline and process.poll() is None:
            seen += process.stdout.read() or b""
            if b"lab-kvm-boots\r" in seen.split(b"Command line", 1)[-1].split(b"\n", 1)[-1]:
                return True
            if b"KVM internal error" in seen:
                return False
            time.sleep(0.1)
    finally:
        kill_group(process)
    return False


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Machine:
    """One QEMU process. Its sockets and console log live in a folder of its own."""

    def __init__(self, folder, process=None):
        self.folder = pathlib.Path(folder)
        self.process = process

    @classmethod
    def start(cls, folder, command, keep=None):
        """keep: None ties the machine's life to this process, else the seconds it may outlive it."""
        if keep:
            command = ["timeout", "--signal=KILL", str(keep), *command]
        with open(folder / "qemu.log", "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=None if keep else _die_with_parent,
            )  # fmt: skip
        (folder / "pid").write_text(str(process.pid))
        return cls(folder, process)

    def alive(self):
        if self.process:
            return self.process.poll() is None
        try:
            pid = int((self.folder / "pid").read_text())
            return b"qemu-system" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False

    def kill(self):
        if self.process:
            kill_group(self.process)
        elif self.alive():
            pid = int((self.folder / "pid").read_text())
            os.killpg(pid, signal.SIGKILL)
            while self.alive():
                time.sleep(0.02)

    def monitor(self, command, **arguments):
        """One QMP command; returns its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(self.folder / "qmp"))
            stream = sock.makefile("rw")
            stream.readline()
            for name, args in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": args}) + "\n")
                stream.flush()
                while True:
                    answer = json.loads(stream.readline())
                    if "error" in answer:
                        raise RuntimeError(answer["error"]["desc"])
                    if "return" in answer:
                        break
            return answer["return"]

    def emulator_fault(self):
        """Whether the guest's kernel died of a breakpoint that it had set itself."""
        try:
            return b"int3: 0000" in (self.folder / "console.log").read_bytes()
        except OSError:
            return False

    def console_tail(self, lines=40):
        text = ""
        for name in ("console.log", "qemu.log"):
            try:
                text += (self.folder / name).read_text(errors="replace")
            except OSError:
                pass
        return "\n".join(text.splitlines()[-lines:])


PREFIX = "ublk-srp-lab-"


def new_folder():
    """A folder for sockets and logs, named after this process; those of processes killed hard are swept first."""
    base = pathlib.Path(tempfile.gettempdir())
    for old in base.glob(PREFIX + "*-*"):
        owner = old.name[len(PREFIX) :].split("-")[0]
        if old.stat().st_uid == os.getuid() and not pathlib.Path("/proc", owner).exists():
            remove_folder(old)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))


def remove_folder(folder):
    shutil.rmtree(folder, ignore_errors=True)
