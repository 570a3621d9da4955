"""What discovery tells besides targets: names of this host, who listens, rules, and the name ibsrpdm."""

import os
import pathlib
import re
import tempfile

from . import daemon, resources, target
from .command import attempt, check, equal, run, wait_until
from .registry import case

GIDS = pathlib.Path("/sys/class/infiniband/rxe0/ports/1/gids")
CONFIGURATION = pathlib.Path("/etc/ublk-srp/config.toml")


@case()
def names_of_this_host(bench):
    """whoami names this initiator as the target knows it, for another extension too."""
    assert bench.daemon
    bench.attach(None, "--lun", "0")
    for extension, line in ((0, None), (2, target.line(initiator_ext="2"))):
        ports = daemon.answer("whoami", *([line] if line else []))["ports"]
        equal("ports", len(ports), 1)
        equal("initiator port", ports[0]["initiator_port"], target.port_name(extension))
        names = [each["name"] for each in ports[0]["names"]]
        check(target.port_name(extension) in names, f"no such name among {names}")
    check(target.port_name(0) in str(target.sessions()), "the target knows this host by another name")
    text = run("ublk-srp", "whoami").out
    check("targetcli /srpt/ib." in text and "scstadmin -add_init" in text, text)
    bench.detach()


@case()
def who_listens(bench):
    """discover --probe tells a target from nobody, and harms no session that is there."""
    assert bench.daemon
    (disk,) = bench.attach(None, "--lun", "0").values()
    before = target.sessions()
    outcome = daemon.cli("discover", "-c", "--rdma-cm-port", target.environment()["PORT"], "--probe")
    check(outcome.code == 0 and "an SRP target answers" in outcome.err, outcome.told())
    outcome = daemon.cli("discover", "-c", "--rdma-cm-port", "5999", "--probe")
    check(outcome.code == 6 and "nobody listens" in outcome.err, outcome.told())
    equal("sessions of the target", target.sessions(), before)
    disk.read(1 << 20)
    bench.detach()


def attributes_of_the_hca():
    """What ibv_devinfo says of it."""
    lines = (line.partition(":") for line in run("ibv_devinfo", "-v", "-d", "rxe0").out.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


@case()
def every_attribute(bench):
    """Everything that the kernel's device management agent says is what sysfs and configfs say of its target."""
    hca = attributes_of_the_hca()
    parameters = pathlib.Path("/sys/module/ib_srpt/parameters")
    guid = int((parameters / "srpt_service_guid").read_text(), 16)
    rdma_size = target.portal_group() / "attrib/srp_max_rdma_size"
    default = rdma_size.read_text()
    # The agent puts the HCA's 24 bits of vendor where the 24 bits are followed by eight of no meaning.
    vendor = int(hca["vendor_id"], 16) >> 8
    controller = {
        "guid": f"{guid:016x}", "vendor_id": vendor, "device_id": int(hca["vendor_part_id"]),
        "device_version": int(hca["hw_ver"], 16), "subsystem_vendor_id": vendor, "subsystem_id": 0,
        "io_class": 0x0100, "io_subclass": 0x609E, "protocol": 0x0108, "protocol_version": 1,
        "send_queue_depth": min(128, int(hca["max_qp_wr"])), "rdma_read_depth": 4,
        "send_size": int((parameters / "srp_max_req_size").read_text()), "capability_mask": 0x2B,
        "id": "Linux SRP target", "service_entries": 1,
        "services": [{"index": 0, "name": f"SRP.T10:{guid:016x}", "id": f"{guid:016x}"}],
    }  # fmt: skip
    agent = {
        "base_version": 1, "class_version": 1, "capability_mask": 0, "capability_mask2": 0,
        "response_time_exponent": 20, "trap_lid": 0, "trap_gid": None,
    }  # fmt: skip
    slots = [{"number": number, "state": "not-installed"} for number in range(2, 17)]
    address = target.environment()["DEST4"].rpartition(":")[0]
    try:
        for size in ("65536", "131072"):
            rdma_size.write_text(size)
            found = daemon.answer("discover", address)
            equal("problems", found["problems"], [])
            (unit,) = found["units"]
            equal("the agent's ClassPortInfo", unit["agent"], agent)
            first = {"number": 1, "state": "present", "controller": controller | {"rdma_size": int(size)}}
            equal("slots, IOControllerProfile, ServiceEntries", unit["slots"], [first, *slots])
            rest = {name: unit[name] for name in ("change_id", "max_controllers", "flags", "redirects", "lid", "gid", "pkey")}
            gid = (GIDS / "0").read_text().strip()
            wanted = {"change_id": 1, "max_controllers": 16, "flags": 0, "redirects": 0, "lid": 0, "gid": gid}
            equal("IOUnitInfo, and where it is", rest, wanted | {"pkey": (GIDS.parent / "pkeys/0").read_text().strip()[2:]})
            (seen,) = found["targets"]
            names = ("id_ext", "ioc_guid", "service_id", "send_size", "rdma_size", "io_class", "dgid")
            equal("the target", [seen[name] for name in names], [f"{guid:016x}"] * 3 + [controller["send_size"], int(size), 0x0100, gid])
    finally:
        rdma_size.write_text(default)


@case()
def rules(bench):
    """discover -c obeys rules as srp_daemon has them, and says which line it does not understand."""
    env = target.environment()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "srp_daemon.conf")

        def lines(text):
            with open(file, "w") as out:
                out.write(text)
            return daemon.cli("discover", "-c", "-f", file, "--rdma-cm-port", env["PORT"])

        equal("with an option", lines("a queue_size=8\n").out, target.line() + ",queue_size=8\n")
        equal("disallowed", lines(f"d ioc_guid={env['IOC_GUID']}\na\n").out, "")
        refused = lines("# fine\nb\n")
        check(refused.code == 2 and re.search("line 2", refused.err), refused.told())


@case()
def called_ibsrpdm(bench):
    """Under the name ibsrpdm it has that program's exit code, and says that RoCE is found otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "ibsrpdm")
        os.symlink(run("sh", "-c", "command -v ublk-srp").out.strip(), program)
        outcome = attempt(program, "-c")
        check(outcome.code == 1 and not outcome.out and "ublk-srp discover" in outcome.err, outcome.told())
        listing = attempt(program, "-d", "umad0")
        check(listing.code == 0 and listing.out.startswith("IO Unit Info:\n    port LID:        0000\n"), listing.told())


@case()
def configured(bench):
    """The configuration file has the daemon watch, and discover know the port; a mistake in it is named."""
    file = CONFIGURATION
    file.parent.mkdir(exist_ok=True)
    try:
        file.write_text("[discovery]\n\nwacth = true\n")
        refused = daemon.cli("daemon")
        check(refused.code == 2 and re.search("line 3: unknown key discovery.wacth", refused.err), refused.told())
        file.unlink()
        assert bench.daemon
        refused = daemon.cli("discover", "--known")
        check(refused.code == 7 and "does not watch" in refused.err and "watch = true" in refused.err, refused.told())
        bench.daemon.end()
        bench.forget_daemon()
        file.write_text(f"[discovery]\nwatch = true\nrdma_cm_port = {target.environment()['PORT']}\n")
        assert bench.daemon
        # There is no subnet manager on RoCE: nothing to watch, and it says so.
        known = daemon.cli("discover", "--known")
        check(known.code == 0 and not known.out and "watches no port" in known.err, known.told())
        equal("what it knows", daemon.answer("discover", "--known")["ports"], [])
        equal("line with the port configured", daemon.cli("discover", "-c").out, target.line() + "\n")
        unwanted = file.with_name("rules")
        unwanted.write_text("d\n")
        with file.open("a") as out:
            out.write(f"rules = '{unwanted}'\n")
        none = daemon.cli("discover", "-c")
        check(none.code == 0 and not none.out and f"rules of {unwanted}" in none.err and ": 1 (-f" in none.err, none.told())
        equal("line by other rules", daemon.cli("discover", "-c", "-f", "/dev/null").out, target.line() + "\n")
        equal("targets listed all the same", len(daemon.answer("discover")["targets"]), 1)
    finally:
        file.unlink(missing_ok=True)


def gids():
    return sorted(gid for gid in (each.read_text().strip() for each in GIDS.glob("[0-9]")) if gid.strip("0:"))


@case(limit=150, pair=True)
def hca_comes_back(bench):
    """The HCA is removed under a session and comes back, twice: a daemon that watches survives it, says why the session is
    lost, lets its disk be detached, and then finds and attaches everything again."""
    if os.uname().release.startswith("6.12"):
        print("soft-RoCE of this kernel does not go while a program has it open")
        return
    env = target.environment()
    network = target.environment("fabric")["NETDEV"]
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(f"[discovery]\nwatch = true\nperiod = 5\nrdma_cm_port = {env['PORT']}\n")
    scan = ("discover", "-c", env["DEST4"].rpartition(":")[0])
    before = gids()
    try:
        assert bench.daemon
        for _ in range(2):
            equal("line", daemon.cli(*scan).out, target.line() + "\n")
            (disk,) = bench.attach(None, "--lun", "1").values()
            disk.check_works()
            held = bench.daemon.open_files()
            run("rdma", "link", "delete", "rxe0", limit=30)

            def session():
                (found,) = daemon.answer("list")["sessions"]
                return found

            wait_until("the session is lost", lambda: session()["state"] == "lost", 10)
            check("RDMA device was removed" in session()["reason"], session())
            outcome = attempt("dd", f"if={disk.path}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct", limit=20)
            check(outcome.code != 0 and "error" in outcome.err, outcome.told())
            outcome = daemon.cli(*scan)
            check(outcome.code == 4 and "no RDMA" in outcome.err, outcome.told())
            outcome = daemon.cli("attach", target.line(initiator_ext="1"), limit=60)
            check(outcome.code in (4, 6) and "hint:" in outcome.err, outcome.told())
            run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", network)
            wait_until("the port has its addresses again", lambda: gids() == before, 10)
            # While the session lost holds what is left of the old HCA, the new one is another.
            (other,) = bench.attach(target.line(initiator_ext="1"), "--lun", "2").values()
            other.check_works()
            outcome = daemon.cli("attach", target.line(), "--lun", "1")
            check(outcome.code == 5 and "lost" in outcome.err and "detach" in outcome.err, outcome.told())
            bench.detach(disk)
            other.check_works()
            bench.detach(other)
            resources.check_released()
        # librdmacm keeps what it had open of an HCA that went.
        now = bench.daemon.open_files()
        check(now <= held + 4, f"{now} files are open, {held} while a disk was attached")
        check(bench.daemon.running(), "the daemon has ended")
    finally:
        CONFIGURATION.unlink(missing_ok=True)
        if not GIDS.exists():
            run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", network)
