"""What a new user does wrong first, and whether the error says what to do."""

import pathlib

from . import daemon, filesystem, target
from .command import attempt, check, equal, run
from .registry import case


def refused(code, words, *command, stdin=None, limit=60):
    """The command fails with this exit code and says these words; the error is on standard error."""
    outcome = daemon.cli(*command, stdin=stdin, limit=limit)
    print(outcome.told())
    equal(f"exit code of {' '.join(command)}", outcome.code, code)
    for word in words:
        check(word in outcome.err, f"{word!r} is not said:\n{outcome.told()}")


@case(smoke=True)
def without_daemon(bench):
    """Every client says how to start it."""
    refused(3, ["ublk-srp daemon"], "list")
    refused(3, ["ublk-srp daemon"], "attach", target.line())
    refused(3, ["ublk-srp daemon"], "detach", "0")


@case(limit=150)
def at_the_target(bench):
    """Unreachable, nobody listening, wrong names, no ACL, nothing to see: each with its remedy."""
    assert bench.daemon
    refused(6, ["10.9.0.77", "hint:"], "attach", target.line(dest="10.9.0.77:5555"))
    refused(6, ["nobody listens"], "attach", target.line(dest="10.9.0.1:5556"))
    refused(6, ["hint:"], "attach", target.line(ioc_guid="0000000000000001"))
    refused(6, ["targetcli", target.port_name(0x99)], "attach", target.line(initiator_ext="99"))
    refused(6, ["--lun"], "attach", target.line(), "--lun", "77")
    refused(6, ["enclosure"], "attach", target.line(), "--lun", "16")
    target.script("target-disable")
    try:
        refused(6, ["10.9.0.1:5555"], "attach", target.line())
    finally:
        target.script("target-enable")


@case()
def in_the_command(bench):
    """Keys, values and device names that make no sense are named."""
    assert bench.daemon
    refused(2, ["ioc_giud", "ioc_guid"], "attach", target.line(ioc_giud="1"))
    refused(2, ["queue_size"], "attach", target.line(queue_size="many"))
    refused(2, ["dest"], "attach", target.line(dest=None))
    refused(2, ["ublkb0p1"], "detach", "/dev/ublkb0p1")
    refused(7, ["ublkb55"], "detach", "55")
    refused(7, ["ublkb55"], "show", "55")


@case()
def busy(bench):
    """A mounted disk and one held open are not detached, and the holder is named."""
    (disk,) = bench.attach(None, "--lun", "1").values()
    filesystem.make(disk, "ext4")
    with filesystem.mounted(disk):
        refused(5, ["/mnt", "--force"], "detach", disk.path)
    with open(disk.path, "rb"):
        refused(5, ["python3"], "detach", disk.path)
    bench.detach(disk)


@case()
def not_root(bench):
    """Others than root may not control the daemon."""
    assert bench.daemon
    outcome = attempt("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ublk-srp", "list")
    print(outcome.told())
    equal("exit code", outcome.code, 4)
    check("root" in outcome.err, outcome.told())


@case()
def host_without_io_uring(bench):
    """io_uring switched off is said at the daemon's start."""
    switch = pathlib.Path("/proc/sys/kernel/io_uring_disabled")
    before = switch.read_text()
    switch.write_text("2\n")
    try:
        refused(4, ["io_uring"], "daemon", limit=20)
    finally:
        switch.write_text(before)


@case()
def host_without_driver(bench):
    """A missing ublk driver is named with its remedy."""
    run("modprobe", "-r", "ublk_drv")
    try:
        refused(4, ["modprobe ublk_drv"], "daemon", limit=20)
    finally:
        run("modprobe", "ublk_drv")
