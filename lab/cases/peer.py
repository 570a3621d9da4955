"""The kernel's initiator at the same target at the same time."""

import pathlib

from . import target
from .command import check, run, wait_until
from .disk import CHUNK, check_same, pattern
from .registry import case

PEER = 0xFE


def peer_disk(lun):
    """The kernel initiator's disk for a LUN."""
    for block in pathlib.Path("/sys/class/block").glob("sd*"):
        where = (block / "device").resolve().name.split(":")
        if where[-1] == str(lun) and "LIO-ORG" in (block / "device/vendor").read_text():
            return f"/dev/{block.name}"
    return None


@case(limit=150)
def side_by_side(bench):
    """Each sees what the other wrote; ours leaves, and the other's session goes on."""
    run("peer-login", limit=60)
    try:
        wait_until("the kernel's initiator has its disks", lambda: peer_disk(1), 30)
        theirs = peer_disk(1)
        # Which initiator_ext the peer has, the kernel does not tell: beside it ours has to be said.
        (ours,) = bench.attach(target.line(initiator_ext="0"), "--lun", "1").values()
        check(len(target.sessions()) == 2, f"sessions: {target.sessions()}")
        ours.write(pattern("ours", CHUNK))
        run("dd", f"if={theirs}", "of=/tmp/theirs", "bs=1M", "count=1", "iflag=direct", "status=none")
        check_same("what the kernel's initiator reads", pathlib.Path("/tmp/theirs").read_bytes(), pattern("ours", CHUNK))
        pathlib.Path("/tmp/theirs").write_bytes(pattern("theirs", CHUNK))
        run("dd", "if=/tmp/theirs", f"of={theirs}", "bs=1M", "seek=1", "oflag=direct", "conv=notrunc", "status=none")
        check_same("what we read", ours.read(CHUNK, CHUNK), pattern("theirs", CHUNK))
        bench.detach(ours)
        name = target.port_name(PEER)
        wait_until("only the peer's session is left", lambda: target.sessions() == [name], 15)
        run("dd", f"if={theirs}", "of=/dev/null", "bs=1M", "count=4", "iflag=direct", "status=none")
    finally:
        run("peer-logout", limit=60)
