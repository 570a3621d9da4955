"""Who is measured: each makes a block device over the same kind of memory, in the same guest, through the same port."""

import json
import os
import pathlib
import subprocess

from cases import target
from cases.command import Failed, attempt, check, run, wait_until

CONFIG = pathlib.Path("/sys/kernel/config")
KERNEL_PORTS = pathlib.Path("/sys/class/infiniband_srp")
NQN = "lab-nvme"
IQN = "iqn.2026-01.org.example:lab"
LUN = 0
SIZE = 256 << 20
TICK_US = 10**6 / os.sysconf("SC_CLK_TCK")


def write(path, value):
    pathlib.Path(path).write_text(str(value))


def disks():
    return {path.name for path in pathlib.Path("/sys/class/block").glob("sd*")}


def new_disk(before, lun):
    """The disk of a LUN that has appeared since."""
    found = []

    def there():
        found[:] = [
            name
            for name in disks() - before
            if pathlib.Path(f"/sys/class/block/{name}/device").resolve().name.rpartition(":")[2] == str(lun)
        ]
        return found

    wait_until("the peer's disk is there", there, 30)
    run("udevadm", "settle", limit=30)
    return f"/dev/{found[0]}"


# The default of 30 us covers the round trip of a small request on real cores, some 10 to 25 us. The same round trip takes
# 300 to 500 us in an emulated guest, and so the wait for it is as much longer; but not where instructions are counted, as
# those of the wait are.
SPIN = 1000


class Ours:
    """ublk-srp; or another build of it, beside it, under an initiator_ext of its own."""

    name = "ublk-srp"

    def __init__(self, options="", program="ublk-srp", number=0, counted=False):
        words = options.split(",")
        self.options = ",".join(word for word in words if not word.startswith("--"))
        self.daemon_options = [word for word in words if word.startswith("--")]
        if not counted and not any(word.startswith("--spin") for word in self.daemon_options):
            self.daemon_options.append(f"--spin={SPIN}")
        self.program = (program, "--socket", f"/run/ublk-srp/bench{number}.sock")
        self.initiator_ext = number
        self.log = f"/var/log/ublk-srp{number or ''}.log"

    def start(self):
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(
                [*self.program, "daemon", *self.daemon_options], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until("the daemon answers", lambda: attempt(*self.program, "status").code == 0, 20)
        line = target.line(initiator_ext=f"{self.initiator_ext:x}") + (f",{self.options}" if self.options else "")
        told = run(*self.program, "attach", line, "--lun", str(LUN), "--json").out
        return json.loads(told.splitlines()[0])["devices"][0]["path"]

    def stop(self):
        attempt(*self.program, "detach", "--all", "--force")
        self.daemon.terminate()
        self.daemon.wait(30)

    def figures(self):
        """Of the daemon since its start: CPU time in user and system mode in microseconds, voluntary switches."""
        ticks, switches = [0, 0], 0
        for task in pathlib.Path(f"/proc/{self.daemon.pid}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            ticks[0] += int(fields[11])
            ticks[1] += int(fields[12])
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    switches += int(line.split()[1])
        return {"user_us": ticks[0] * TICK_US, "system_us": ticks[1] * TICK_US, "voluntary_switches": switches}


class KernelSrp:
    name = "ib_srp"

    def start(self):
        before = disks()
        run("peer-login", limit=60)
        return new_disk(before, LUN)

    def stop(self):
        attempt("peer-logout")


def sessions_of_kernel():
    return set(pathlib.Path("/sys/class/srp_remote_ports").glob("port-*"))


def end_sessions_of_kernel(ended):
    for port in ended:
        write(port / "delete", 1)
    wait_until("the kernel's sessions have ended", lambda: not ended & sessions_of_kernel(), 60)


def kernel_disks(first_ext, sessions, number):
    """Logs ib_srp in as often as `sessions`, each for 32 commands, and gives the disks once they are as many as `number`."""
    run("modprobe", "ib_srp")
    before = disks()
    wait_until("ib_srp has its port", lambda: any(KERNEL_PORTS.glob("*/add_target")), 20)
    (port,) = KERNEL_PORTS.iterdir()
    for ext in range(first_ext, first_ext + sessions):
        write(port / "add_target", target.line(initiator_ext=f"{ext:x}") + ",queue_size=32")
    wait_until("the kernel's disks are there", lambda: len(disks() - before) >= number, 60)
    run("udevadm", "settle", "-t", "300", limit=310)
    return sorted(f"/dev/{name}" for name in disks() - before)


class Iscsi:
    """iSCSI over TCP, to LIO; the same ramdisk kind."""

    name = "iscsi"
    port = 3260
    interface = "default"
    modules = ("iscsi_target_mod", "iscsi_tcp")

    def start(self):
        run("modprobe", "-a", *self.modules)
        pathlib.Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
        if attempt("pidof", "iscsid").code:
            if not pathlib.Path("/etc/iscsi/initiatorname.iscsi").exists():
                write("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.2026-01.org.example:host\n")
            run("iscsid", limit=30)
        self.make_target()
        self.where = ("-m", "node", "-T", self.iqn, "-p", f"10.9.0.1:{self.port}")
        before = disks()
        run("iscsiadm", *self.where, "-I", self.interface, "-o", "new")
        run("iscsiadm", *self.where, "-l", limit=60)
        return new_disk(before, LUN)

    @property
    def iqn(self):
        return f"{IQN}-{self.name}"

    def make_target(self):
        store = CONFIG / "target/core" / f"rd_mcp_{self.port}" / self.name
        store.mkdir(parents=True)
        write(store / "control", f"rd_pages={SIZE // 4096}")
        write(store / "enable", 1)
        group = CONFIG / "target/iscsi" / self.iqn / "tpgt_1"
        (group / "lun/lun_0").mkdir(parents=True)
        (group / "lun/lun_0" / self.name).symlink_to(store)
        for name, value in (("generate_node_acls", 1), ("demo_mode_write_protect", 0), ("authentication", 0)):
            write(group / "attrib" / name, value)
        (group / "np" / f"10.9.0.1:{self.port}").mkdir()
        self.prepare_portal(group / "np" / f"10.9.0.1:{self.port}")
        write(group / "enable", 1)

    def prepare_portal(self, portal):
        pass

    def stop(self):
        attempt("iscsiadm", *self.where, "-u", limit=60)
        attempt("iscsiadm", *self.where, "-o", "delete")


class Iser(Iscsi):
    """iSCSI extensions for RDMA, to LIO."""

    name = "iser"
    port = 3261
    interface = "iser"
    modules = ("iscsi_target_mod", "ib_isert", "ib_iser")

    def prepare_portal(self, portal):
        write(portal / "iser", 1)


class Nvme:
    """NVMe over RDMA, to nvmet, over brd."""

    name = "nvme-rdma"

    def start(self):
        run("modprobe", "-a", "nvmet", "nvmet-rdma", "nvme-rdma")
        run("modprobe", "brd", "rd_nr=1", f"rd_size={SIZE // 1024}")
        subsystem = CONFIG / "nvmet/subsystems" / NQN
        (subsystem / "namespaces/1").mkdir(parents=True)
        write(subsystem / "attr_allow_any_host", 1)
        write(subsystem / "namespaces/1/device_path", "/dev/ram0")
        write(subsystem / "namespaces/1/enable", 1)
        port = CONFIG / "nvmet/ports/1"
        port.mkdir()
        for name, value in (("addr_adrfam", "ipv4"), ("addr_trtype", "rdma"), ("addr_traddr", "10.9.0.1"),
                            ("addr_trsvcid", "4420")):  # fmt: skip
            write(port / name, value)
        (port / "subsystems" / NQN).symlink_to(subsystem)
        run("nvme", "connect", "-t", "rdma", "-a", "10.9.0.1", "-s", "4420", "-n", NQN, "-i", "2", limit=60)
        wait_until("the namespace is there", lambda: pathlib.Path("/dev/nvme0n1").exists(), 30)
        run("udevadm", "settle", limit=30)
        return "/dev/nvme0n1"

    def stop(self):
        attempt("nvme", "disconnect", "-n", NQN, limit=30)


class UblkMemory:
    """Our own ublk front end over local memory: what is left when nothing is behind it."""

    name = "ublk-memory"
    program = "/opt/ublk-srp/examples/memory"

    def start(self):
        check(pathlib.Path(self.program).exists(), "build it: cargo build --release -p ublk-frontend --example memory")
        before = set(pathlib.Path("/dev").glob("ublkb*"))
        self.process = subprocess.Popen(
            [self.program, "--mib", str(SIZE >> 20), "--reactors", "2", "--queues", "2", "--depth", "128"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        found = []

        def there():
            found[:] = set(pathlib.Path("/dev").glob("ublkb*")) - before
            return found

        wait_until("the device is there", there, 20)
        run("udevadm", "settle", limit=30)
        return str(found[0])

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Failed("the memory device does not end") from None


def named(name, number, counted):
    """A peer by its name; ublk-srp may have a program (ublk-srp@/opt/ublk-srp/old) and, after a
    colon, options of the target (ch_count=1) and of the daemon (--spin=0)."""
    kind, _, options = name.partition(":")
    kind, _, program = kind.partition("@")
    if kind not in PEERS:
        raise SystemExit(f"no peer {kind!r}; there are {', '.join(PEERS)}")
    peer = Ours(options, program or "ublk-srp", number, counted) if kind == Ours.name else PEERS[kind]()
    peer.name = name
    return peer


PEERS = {peer.name: peer for peer in (Ours, KernelSrp, Iscsi, Iser, Nvme, UblkMemory)}
