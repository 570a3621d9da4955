"""Commands that make no sense, devices in use or not there: exit code and a message that helps."""

import os

from . import daemon, filesystem, target
from .command import check, equal
from .message import check_told, check_told_in_json
from .registry import case

USAGE, NOT_RUNNING, BUSY, NOT_FOUND = 2, 3, 5, 7


@case()
def daemon_not_running(bench):
    """No daemon."""
    for words in (["list"], ["status"], ["show", "0"], ["detach", "0"], ["attach", target.line()]):
        check_told(daemon.cli(*words), NOT_RUNNING, "not running", "ublk-srp daemon|systemctl start")
    check_told_in_json(daemon.cli("list", "--json"), NOT_RUNNING, "not_running")


@case()
def mounted(bench):
    """A mounted disk is not detached, and the message says where it is mounted."""
    (disk,) = bench.attach(None, "--lun", "1").values()
    filesystem.make(disk, "ext4")
    with filesystem.mounted(disk) as place:
        check_told(daemon.cli("detach", disk.path), BUSY, disk.path, f"held by:.*{place}", "hint:.*unmount")
        outcome = daemon.cli("detach", disk.path, "--json")
        equal("exit code with --json", outcome.code, BUSY)
        check(str(place) in outcome.out, outcome.told())
        (place / "file").write_text("still works")
    bench.detach(disk)


@case()
def held_open(bench):
    """A disk that a process holds open is not detached, and the message names the process."""
    (disk,) = bench.attach(None, "--lun", "1").values()
    handle = os.open(disk.path, os.O_RDWR)
    try:
        check_told(daemon.cli("detach", disk.path), BUSY, disk.path, f"held by:.*{os.getpid()}", "hint:")
    finally:
        os.close(handle)
    bench.detach(disk)


@case()
def partition(bench):
    """A partition is no device of ours."""
    assert bench.daemon
    check_told(daemon.cli("detach", "/dev/ublkb0p1"), USAGE, "partition|whole|ublkb0")


@case()
def no_such_device(bench):
    """There is no such device."""
    assert bench.daemon
    check_told(daemon.cli("detach", "77"), NOT_FOUND, "ublkb77")
    check_told(daemon.cli("show", "/dev/ublkb77"), NOT_FOUND, "ublkb77")
    check_told(daemon.cli("show", "/dev/sda"), USAGE, "sda")


@case()
def target_text(bench):
    """Keys unknown, missing or with bad values are named."""
    assert bench.daemon
    for line, named in (
        (target.line(frobnicate="2"), "frobnicate"),
        (target.line(ioc_guid=None), "ioc_guid"),
        (target.line(id_ext=None), "id_ext"),
        (target.line(dest=None), "dest"),
        (target.line(dest="nowhere"), "nowhere"),
        (target.line(ioc_guid="xyz"), "ioc_guid"),
        (target.line(queue_size="0"), "queue_size"),
        (target.line(ch_count="many"), "ch_count"),
        ("nonsense", "nonsense"),
        ("", "target"),
    ):
        check_told(daemon.cli("attach", line), USAGE, named)
    check_told_in_json(daemon.cli("attach", "nonsense", "--json"), USAGE, "usage")


@case()
def options(bench):
    """Options unknown, and sets of LUNs that are none."""
    check_told(daemon.cli("frobnicate"), USAGE, "frobnicate")
    check_told(daemon.cli("list", "--frobnicate"), USAGE, "frobnicate")
    check_told(daemon.cli("attach", target.line(), "--lun", "7-3"), USAGE, "7-3")
    check_told(daemon.cli("detach"), USAGE, "DEVICE|--all")
    check_told(daemon.cli("attach", "-", stdin=""), NOT_FOUND, "standard input", "discover")
    check_told(daemon.cli("discover", "-c"), USAGE, "rdma-cm-port")
