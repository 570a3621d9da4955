"""What a daemon holds: RDMA objects, ublk devices, sessions at the target."""

import json
import pathlib

from . import target
from .command import Failed, attempt, check, run, wait_until

SETTLE = 15
#: The target lists a session for half a second after ours has ended, and for as long after ib_srp's: ten times that.
TAKEN_APART = 5


def rdma(kind):
    """The objects of one kind that user processes hold."""
    text = run("rdma", "-j", "resource", "show", kind).out
    return [entry for entry in json.loads(text or "[]") if "pid" in entry]


def count_rdma():
    """Connections and registered memory. Protection domains, completion queues and contexts are the daemon's own."""
    return {kind: len(rdma(kind)) for kind in ("qp", "mr", "cm_id") if rdma(kind)}


def ublk_devices():
    """Every trace of ublk devices: nodes, disks and character devices."""
    found = list(pathlib.Path("/sys/class/ublk-char").glob("ublkc*"))
    found += pathlib.Path("/sys/class/block").glob("ublkb*")
    found += pathlib.Path("/dev").glob("ublk[bc]*")
    return sorted(str(path) for path in found)


def _nothing_of(describe, what, limit=SETTLE):
    try:
        wait_until(what, lambda: not describe(), limit)
    except Failed as late:
        raise Failed(f"{late}: {describe()}") from None


def check_nothing_held():
    """No connection, no registered memory and no device, whatever the target may still believe."""
    check(not ublk_devices(), f"ublk devices are left: {ublk_devices()}")
    _nothing_of(count_rdma, "connections and memory of the daemon are gone")


def check_sessions(*ports):
    """At the target are the sessions of these ports and no others: it takes one apart after its initiator has gone."""

    def wrong():
        found = sorted(target.sessions())
        return [] if found == sorted(ports) else [f"{found} instead of {sorted(ports)}"]

    _nothing_of(wrong, "the target has the sessions it should have", TAKEN_APART)


def check_released(sessions_expected=()):
    """With nothing attached: what connections and devices were made of is gone, though the daemon runs."""
    check_nothing_held()
    _nothing_of(lambda: sorted(set(target.sessions()) - set(sessions_expected)), "the target has no session of ours")


def check_nothing_left():
    """After the daemon's end."""

    def left():
        outcome = attempt("leftovers")
        return outcome.out + outcome.err if outcome.code else ""

    _nothing_of(left, "nothing of the daemon is left")
