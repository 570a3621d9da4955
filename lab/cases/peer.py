"""The kernel's initiator at the same target at the same time."""

import pathlib
import re

from . import daemon, resources, target
from .command import check, equal, run, wait_until
from .disk import CHUNK, Disk, check_same, pattern
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
        resources.check_sessions(target.port_name(PEER))
        run("dd", f"if={theirs}", "of=/dev/null", "bs=1M", "count=4", "iflag=direct", "status=none")
    finally:
        run("peer-logout", limit=60)


@case(limit=150)
def same_ports(bench):
    """A session of the kernel's that ours would end is left alone and goes on; under another name ours attaches."""
    assert bench.daemon
    run("peer-login", "initiator_ext=0", limit=60)
    try:
        wait_until("the kernel's initiator has its disks", lambda: peer_disk(1), 30)
        theirs = peer_disk(1)

        def they_work():
            run("dd", "if=/dev/zero", f"of={theirs}", "bs=1M", "count=2", "oflag=direct", "conv=notrunc", "status=none")
            run("dd", f"if={theirs}", "of=/dev/null", "bs=1M", "count=2", "iflag=direct", "status=none")

        outcome = daemon.cli("attach", target.line(), "--lun", "1")
        print(outcome.told())
        equal("exit code", outcome.code, 5)
        (host,) = re.findall(r"ib_srp \((host\d+)\)", outcome.err)
        equal("whose host it is", pathlib.Path(f"/sys/class/scsi_host/{host}/proc_name").read_text().strip(), "ib_srp")
        for told in ("rxe0/1", target.port_name(0), f"/sys/class/srp_remote_ports/port-{host[4:]}:1/delete", "initiator_ext"):
            check(told in outcome.err, f"{told!r} is missing: {outcome.told()}")
        equal("sessions at the target", target.sessions(), [target.port_name(0)])
        they_work()
        (ours,) = bench.attach(target.line(initiator_ext="1"), "--lun", "1").values()
        equal("sessions at the target", sorted(target.sessions()), [target.port_name(0), target.port_name(1)])
        ours.check_works()
        they_work()
        bench.detach(ours)
    finally:
        run("peer-logout", limit=60)
    (ours,) = bench.attach(None, "--lun", "1").values()
    ours.check_works()
    bench.detach()


@case(limit=150)
def takes_our_line(bench):
    """What discover -c prints, the kernel's add_target takes as it stands; so does attach."""
    assert bench.daemon
    run("modprobe", "ib_srp")
    add_target = pathlib.Path("/sys/class/infiniband_srp/srp-rxe0-1/add_target")
    wait_until("ib_srp has the port", add_target.exists, 10)
    (line,) = run("ublk-srp", "discover", "-c", "--rdma-cm-port", target.environment()["PORT"]).out.splitlines()
    try:
        add_target.write_text(line)
        wait_until("the kernel's initiator has its disks", lambda: peer_disk(1), 30)
        equal("sessions at the target", target.sessions(), [target.port_name(0)])
    finally:
        run("peer-logout", limit=60)
    run("ublk-srp", "attach", "-", "--lun", "1", stdin=line + "\n")
    (found,) = daemon.answer("list")["devices"]
    Disk(found).check_works()
    bench.detach()
