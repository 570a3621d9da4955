"""What a target or the way to it may come up with: exit code 6 and a message that names cause and remedy."""

import os

from . import daemon, resources, target
from .command import check, equal
from .message import check_told, check_told_in_json
from .registry import case

TARGET = 6
BOUND = 40  # seconds until a target that does not answer is given up


def refused(bench, *needles, code=TARGET, **changes):
    assert bench.daemon
    check_told(daemon.cli("attach", target.line(**changes), limit=BOUND), code, *needles)
    equal("list after a refusal", daemon.answer("list"), {"devices": [], "sessions": []})


@case()
def unreachable(bench):
    """Nobody has the address."""
    refused(bench, r"10\.9\.0\.77", "hint:", dest="10.9.0.77:5555")
    outcome = daemon.cli("attach", target.line(dest="10.9.0.77:5555"), "--json", limit=BOUND)
    check_told_in_json(outcome, TARGET, "target")


@case()
def no_route(bench):
    """No interface leads there."""
    refused(bench, r"192\.0\.2\.1", "hint:", dest="192.0.2.1:5555")


@case()
def nobody_listens(bench):
    """The port is wrong."""
    refused(bench, r"10\.9\.0\.1:5556", "hint:", "port|listen", dest="10.9.0.1:5556")


@case()
def other_controller(bench):
    """ioc_guid is not the target's."""
    refused(bench, "reject", "hint:", "ioc_guid", ioc_guid="505400fffe5a0002")


@case()
def no_acl(bench):
    """The target does not know this initiator: the message has the name to add."""
    name = target.port_name(0x99)
    refused(bench, name, "acl", "targetcli|create", initiator_ext="0000000000000099")


@case()
def disabled(bench):
    """The target's port is disabled."""
    target.script("target-disable")
    try:
        refused(bench, "hint:")
    finally:
        target.script("target-enable")
    check(bench.attach(None, "--lun", "0"), "nothing attached once the target is enabled")
    bench.detach()


@case()
def no_luns(bench):
    """The ACL of this initiator has no LUN in it."""
    acl = target.portal_group() / "acls" / target.port_name(0x77)
    acl.mkdir()
    try:
        for mapped in acl.glob("lun_*"):
            mapped.rmdir()
        assert bench.daemon
        outcome = daemon.cli("attach", target.line(initiator_ext="0000000000000077"), limit=BOUND)
        check_told(outcome, outcome.code, "LUN", "map|ACL")
        check(outcome.code in (6, 7), f"exit code {outcome.code}")
        resources.check_sessions()
    finally:
        os.rmdir(acl)


@case()
def no_such_lun(bench):
    """--lun names a LUN that the target does not have."""
    assert bench.daemon
    outcome = daemon.cli("attach", target.line(), "--lun", "77")
    check_told(outcome, 7, "16684", "--lun")
    equal("list after it", daemon.answer("list"), {"devices": [], "sessions": []})


@case()
def discover_elsewhere(bench):
    """discover is pointed at an address where nobody is."""
    outcome = daemon.cli("discover", "10.9.0.77", limit=BOUND)
    check_told(outcome, TARGET, r"10\.9\.0\.77")
