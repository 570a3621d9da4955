"""What this host may lack, as a new user meets it: exit code 4 and a message that names cause and remedy."""

import contextlib
import os
import pathlib
import tempfile

from . import daemon, target
from .command import attempt, check, equal, run
from .message import check_told
from .registry import case

HOST, BUSY = 4, 5
SYSCTL = pathlib.Path("/proc/sys/kernel/io_uring_disabled")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ublk-srp")


@contextlib.contextmanager
def without_module(name, device):
    run("modprobe", "-r", name)
    try:
        yield
    finally:
        run("modprobe", name)
        for _ in range(100):
            if os.path.exists(device):
                break
            run("sleep", "0.1")


@contextlib.contextmanager
def without_node(path):
    """As if the driver behind a device node were not loaded."""
    os.rename(path, path + ".away")
    try:
        yield
    finally:
        os.rename(path + ".away", path)


def start_daemon(program=("ublk-srp",)):
    return attempt(*program, "daemon", limit=20)


@case()
def no_ublk_driver(bench):
    """ublk_drv is not loaded."""
    with without_module("ublk_drv", "/dev/ublk-control"):
        check_told(start_daemon(), HOST, "ublk-control", "modprobe ublk_drv")


@case()
def no_umad(bench):
    """ib_umad, which discovery needs, is not loaded."""
    with without_module("ib_umad", "/dev/infiniband/umad0"):
        check_told(daemon.cli("discover"), HOST, "ib_umad", "modprobe")
        for words in (("-d", "umad0"), ("-d", "/dev/infiniband/umad0", "-i", "rxe0")):
            check_told(daemon.cli("discover", *words), HOST, "no umad device", "modprobe ib_umad")
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "ibsrpdm")
            os.symlink(run("sh", "-c", "command -v ublk-srp").out.strip(), program)
            told = attempt(program, "-c", "-d", "umad0")
            check(told.code == 1 and not told.out and "no umad device" in told.err and "modprobe ib_umad" in told.err, told.told())


@case()
def no_rdma_ucm(bench):
    """rdma_ucm is not loaded, and cannot be loaded by opening its node."""
    with without_node("/dev/infiniband/rdma_cm"):
        check_told(start_daemon(), HOST, "rdma_cm", "modprobe rdma_ucm")


@case()
def no_verbs_device(bench):
    """The RDMA device has no node for user space."""
    with without_node("/dev/infiniband/uverbs0"):
        check_told(start_daemon(), HOST, "rxe0", "modprobe ib_uverbs")


@case()
def io_uring_disabled(bench):
    """io_uring is switched off for everybody."""
    before = SYSCTL.read_text()
    SYSCTL.write_text("2")
    try:
        check_told(start_daemon(), HOST, "io_uring_disabled")
    finally:
        SYSCTL.write_text(before)


@case()
def daemon_not_by_root(bench):
    """The daemon is started by somebody else than root."""
    check_told(start_daemon(NOBODY), HOST, "permission|permitted", "root|CAP_")


@case()
def client_not_by_root(bench):
    """The daemon is root's, the command somebody else's."""
    assert bench.daemon
    check_told(attempt(*NOBODY, "list"), HOST, "permission|permitted", "root|sudo|group")
    check_told(attempt(*NOBODY, "attach", target.line()), HOST, "permission|permitted", "root|sudo|group")
    check_told(attempt(*NOBODY, "discover"), HOST, "permission|permitted", "root|sudo|group|udev")


@case()
def second_daemon(bench):
    """A daemon runs already."""
    assert bench.daemon
    check_told(start_daemon(), BUSY, "another daemon")
    equal("pid of the daemon that answers", daemon.answer("status")["pid"], bench.daemon.pid)
