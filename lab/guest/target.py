"""The lab's SRP target: LIO's ib_srpt with one LUN of every kind, set up through configfs.

usage: target.py up|down|disable|enable|restart|sessions

up writes /run/lab/target.env with what an initiator has to know. File-backed LUNs keep their content over down and up.
sessions prints a line per initiator that is logged in, and the number of connected queue pairs owned by the kernel.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

CONFIG = pathlib.Path("/sys/kernel/config/target")
SRPT = CONFIG / "srpt"
FILES = pathlib.Path("/var/lib/lab")
RUN = pathlib.Path("/run/lab")
PORT = 5555
MIB = 1 << 20

# LIO puts a LUN's number on the wire as it is: 300 becomes 01 2c (peripheral device, bus 1), 16684 becomes 41 2c,
# which is LUN 300 in flat space addressing.
LUNS = {
    0: ("ram", 256),
    1: ("writeback", 128),
    2: ("writethrough", 128),
    3: ("block4096", 128),
    5: ("thin", 1024),
    8: ("readonly", 16),
    9: ("tiny", 4),
    16: ("enclosure", 0),
    300: ("bus1", 16),
    16684: ("flat", 16),
}
RAM = ("ram", "tiny", "bus1", "flat")
# initiator_ext of the default initiator, of further ones for tests, and of the kernel's ib_srp as peer.
PEER_EXT = 0xFE
INITIATOR_EXTS = (0, 1, 2, 3, PEER_EXT)


def write(path, text):
    with open(path, "w") as file:
        file.write(str(text))


def environment(name):
    lines = (RUN / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def names():
    """(wwn, portal group) folder of the target port: both carry the port's GID."""
    gid = "0x" + environment("fabric")["GID"].replace(":", "")
    return SRPT / gid, SRPT / gid / gid


def initiator_guids():
    """Port GUIDs that may log in: our own, and with two guests on a wire the other one's, known by its MAC address."""
    return [environment("fabric")["GUID"]] + [
        f"505400fffe5a{number:04x}" for number in (1, 2) if "lab.host=" in pathlib.Path("/proc/cmdline").read_text()
    ]


def acl_names():
    return sorted({f"0x{ext:016x}{guid}" for ext in INITIATOR_EXTS for guid in initiator_guids()})


def debug_device():
    """(host, channel, id, lun) of the simulated enclosure."""
    for device in pathlib.Path("/sys/bus/scsi/devices").glob("*:*:*:*"):
        if (device / "type").read_text().strip() == "13":
            return [int(part) for part in device.name.split(":")]
    raise SystemExit("target: scsi_debug made no enclosure")


def make_backstore(lun, kind, size):
    hba = {"enclosure": "pscsi"}.get(kind, "rd_mcp" if kind in RAM else "fileio")
    store = CONFIG / "core" / f"{hba}_{lun}" / kind
    store.mkdir(parents=True)
    if kind in RAM:
        write(store / "control", f"rd_pages={size * MIB // 4096}")
    elif kind == "enclosure":
        host, channel, target, unit = debug_device()
        write(store / "control", f"scsi_host_id={host}")
        write(store / "control", f"scsi_channel_id={channel},scsi_target_id={target},scsi_lun_id={unit}")
        write(store / "udev_path", "/dev/sg0")
    else:
        FILES.mkdir(parents=True, exist_ok=True)
        path = FILES / f"{kind}.img"
        with open(path, "ab") as file:
            file.truncate(size * MIB)
        buffered = ",fd_buffered_io=1" if kind == "writeback" else ""
        write(store / "control", f"fd_dev_name={path},fd_dev_size={size * MIB}{buffered}")
    if kind != "enclosure":
        write(store / "wwn/vpd_unit_serial", f"1ab{lun:05x}-0000-4000-8000-0000000{lun:05x}")
    write(store / "enable", 1)
    if kind == "block4096":
        write(store / "attrib/block_size", 4096)
    if kind == "writeback":
        write(store / "attrib/emulate_write_cache", 1)
    if kind == "thin":
        write(store / "attrib/emulate_tpu", 1)
        write(store / "attrib/emulate_tpws", 1)
    return store


def up():
    subprocess.run(["modprobe", "-a", "target_core_mod", "target_core_file", "target_core_pscsi", "ib_srpt"], check=True)
    if not CONFIG.exists():
        subprocess.run(["mount", "-t", "configfs", "configfs", "/sys/kernel/config"], check=True)
    if not pathlib.Path("/sys/bus/pseudo/drivers/scsi_debug").exists():
        subprocess.run(["modprobe", "scsi_debug", "ptype=13", "max_luns=1", "num_tgts=1"], check=True)
        subprocess.run(["udevadm", "settle", "-t", "20"], check=False)
    wwn, group = names()
    group.mkdir(parents=True)
    for lun, (kind, size) in LUNS.items():
        folder = group / "lun" / f"lun_{lun}"
        folder.mkdir()
        (folder / kind).symlink_to(make_backstore(lun, kind, size))
    for name in acl_names():
        acl = group / "acls" / name
        acl.mkdir()
        for lun, (kind, _) in LUNS.items():
            mapped = acl / f"lun_{lun}"
            mapped.mkdir(exist_ok=True)
            (mapped / "lun").symlink_to(group / "lun" / f"lun_{lun}")
            if kind == "readonly":
                write(mapped / "write_protect", 1)
    write(SRPT / "discovery_auth/rdma_cm_port", PORT)
    write(group / "enable", 1)
    print(tell())


def tell():
    fabric = environment("fabric")
    guid = pathlib.Path("/sys/module/ib_srpt/parameters/srpt_service_guid").read_text().strip()
    guid = f"{int(guid, 16):016x}"
    text = "\n".join(
        (
            f"ID_EXT={guid}",
            f"IOC_GUID={guid}",
            f"SERVICE_ID={guid}",
            f"DGID={fabric['GID'].replace(':', '')}",
            "PKEY=ffff",
            f"PORT={PORT}",
            f"DEST4={fabric['ADDR4']}:{PORT}",
            f"DEST6=[{fabric['ADDR6']}]:{PORT}",
            f"PEER_EXT={PEER_EXT:016x}",
            "LUNS=" + ",".join(f"{lun}:{kind}" for lun, (kind, _) in LUNS.items()),
        )
    )
    write(RUN / "target.env", text + "\n")
    return text


def down():
    wwn, group = names()
    if group.exists():
        write(group / "enable", 0)
        for acl in (group / "acls").iterdir():
            for mapped in acl.glob("lun_*"):
                (mapped / "lun").unlink(missing_ok=True)
                mapped.rmdir()
            acl.rmdir()
        for folder in group.glob("lun/lun_*"):
            # Backstores, those that cases have added among them.
            for link in filter(pathlib.Path.is_symlink, folder.iterdir()):
                link.unlink()
            folder.rmdir()
        group.rmdir()
    if wwn.exists():
        wwn.rmdir()
    if SRPT.exists():
        write(SRPT / "discovery_auth/rdma_cm_port", 0)
    for hba in (CONFIG / "core").glob("*_*"):
        for store in hba.iterdir():
            if store.is_dir():
                store.rmdir()
        hba.rmdir()
    subprocess.run(["modprobe", "-r", "scsi_debug"], check=False)
    (RUN / "target.env").unlink(missing_ok=True)


def logged_in():
    """Initiators with a session: only for those does LIO know an attached port."""
    found = []
    for acl in (names()[1] / "acls").iterdir():
        for file in acl.glob("lun_*/statistics/scsi_att_intr_port/port_ident"):
            try:
                if file.read_text().strip():
                    found.append(acl.name)
                    break
            except OSError:
                continue
    return found


def kernel_queue_pairs():
    """Connected queue pairs the kernel owns: one per channel of ib_srpt, and one per channel of a local ib_srp."""
    text = subprocess.run(["rdma", "-j", "resource", "show", "qp"], capture_output=True, text=True, check=True).stdout
    return sum(1 for entry in json.loads(text or "[]") if entry["type"] == "RC" and "pid" not in entry)


def sessions():
    for name in logged_in():
        print("session", name)
    print("kernel queue pairs", kernel_queue_pairs())


def switch(value):
    write(names()[1] / "enable", value)


def restart():
    down()
    time.sleep(0.5)
    up()


ACTIONS = {
    "up": up,
    "down": down,
    "disable": lambda: switch(0),
    "enable": lambda: switch(1),
    "restart": restart,
    "sessions": sessions,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ACTIONS:
        sys.exit(__doc__)
    ACTIONS[sys.argv[1]]()
