"""Which attaches share a session, and which are refused."""

from . import daemon, fio, resources, target
from .command import check, equal, run
from .disk import CHUNK, Disk, pattern
from .registry import case


@case()
def shared(bench):
    """A second attach to the same target uses the session there is."""
    bench.attach(None, "--lun", "0")
    bench.attach(None, "--lun", "1")
    listed = daemon.answer("list")
    equal("sessions", len(listed["sessions"]), 1)
    equal("sessions at the target", target.sessions(), [target.port_name(0)])
    equal("sessions of the devices", len({each["session"] for each in listed["devices"]}), 1)
    first, second = listed["devices"]
    bench.detach(Disk(first))
    equal("sessions at the target", target.sessions(), [target.port_name(0)])
    equal("devices left", [each["number"] for each in daemon.answer("list")["devices"]], [second["number"]])
    bench.detach()


@case()
def second_path(bench):
    """Another initiator_ext makes a session of its own to the same LUN."""
    one = bench.attach(None, "--lun", "0")[0]
    two = bench.attach(target.line(initiator_ext="0000000000000001"), "--lun", "0")[0]
    equal("sessions at the target", sorted(target.sessions()), [target.port_name(0), target.port_name(1)])
    equal("identifiers", one.info["identifier"], two.info["identifier"])
    one.check_works()
    two.check_works()
    bench.detach(one)
    resources.check_sessions(target.port_name(1))
    two.check_works()
    bench.detach(two)


@case()
def probed(bench):
    """A port that is said to have gone and answers keeps its sessions, whatever it is called by."""
    one = bench.attach(None, "--lun", "0")[0]
    bench.attach(target.line(initiator_ext="1", dest=target.environment()["DEST6"]), "--lun", "0")
    ids = sorted(each["id"] for each in daemon.answer("list")["sessions"])
    address = target.environment()["DEST4"].rpartition(":")[0]
    for port, wanted in ((address, ids[:1]), (f"::ffff:{address}", ids[:1]), ("fd00:5a::1", ids[1:]), ("10.9.0.77", [])):
        found = daemon.call("probe", port=port)["sessions"]
        equal(f"answers at {port}", found, [{"session": each, "alive": True} for each in wanted])
    equal("states", {each["state"] for each in daemon.answer("list")["sessions"]}, {"running"})
    one.check_works()
    bench.detach()


@case()
def ended_by_an_iu(bench):
    """With logout=iu the target is sent an SRP_I_LOGOUT before the connections end; LIO says that it ignores it."""

    def told():
        return run("dmesg").out.count("SRP_I_LOGOUT")

    before = told()
    bench.attach(None, "--lun", "0")[0].check_works()
    bench.detach()
    equal("of a session that ends as it does without being told", told(), before)
    bench.attach(target.line(logout="iu"), "--lun", "0")[0].check_works()
    bench.detach()
    resources.check_sessions()
    check(told() > before, "the target has seen none")


@case(limit=150)
def short_ius(bench):
    """A target that refuses logins which ask for long IUs, as older ones do, is logged in to with short ones."""

    def restart_with(*parameters):
        target.script("target-down")
        run("rmdir", target.CONFIG / "srpt")
        run("modprobe", "-r", "ib_srpt", limit=60)
        run("modprobe", "ib_srpt", *parameters, limit=60)
        target.script("target-up")

    restart_with("srp_max_req_size=2116")
    try:
        disk = bench.attach(None, "--lun", "2")[2]
        disk.write(pattern("short", 2 * CHUNK))
        fio.verify(disk, "random", 4 * CHUNK)
        # An administrator's word stands.
        outcome = daemon.cli("attach", target.line(initiator_ext="1", max_it_iu_size="8260"), "--lun", "2")
        print(outcome.told())
        equal("exit code", outcome.code, 6)
        check("IU length too large" in outcome.err and "max_it_iu_size" in outcome.err, outcome.told())
        bench.detach()
    finally:
        restart_with()
    disk = bench.attach(None, "--lun", "2")[2]
    disk.check_works()
    bench.detach()


@case()
def duplicates(bench):
    """A LUN that is attached already, and the same session by another route, are refused with a hint."""
    bench.attach(None, "--lun", "0")
    outcome = daemon.cli("attach", target.line(), "--lun", "0")
    print(outcome.told())
    equal("exit code for a LUN attached already", outcome.code, 5)
    check("hint:" in outcome.err and "/dev/ublkb" in outcome.err, outcome.told())
    other_route = target.line(dest=target.environment()["DEST6"])
    outcome = daemon.cli("attach", other_route, "--lun", "1")
    print(outcome.told())
    equal("exit code for the same two ports by another address", outcome.code, 5)
    check("hint:" in outcome.err and "initiator_ext" in outcome.err, outcome.told())
    equal("sessions at the target", target.sessions(), [target.port_name(0)])
    bench.detach()
    resources.check_released()


@case(limit=150)
def with_deep_queues(bench):
    """Sessions whose channels do not fit the completion queue of a reactor get further ones, and all of them work."""
    disks = []
    for ext in range(0x600, 0x605):
        target.allow(ext, (0,))
        line = target.line(initiator_ext=f"{ext:x}", queue_size=1500, ch_count=1)
        disks.append(bench.attach(line, "--lun", "0")[0])
    # A pair for two channels of so many requests.
    equal("completion queues", len(resources.rdma("cq")), 6)
    loads = [fio.Running(disk, seconds=4, rw="randread") for disk in disks]
    for load in loads:
        bench.watch(load.process)
    for load in loads:
        equal(f"exit code of fio\n{load.told()}\n", load.wait(60), 0)
    for disk in disks[1:]:
        bench.detach(disk)
    disks[0].check_works()
    equal("completion queues", len(resources.rdma("cq")), 2)
    bench.detach()
