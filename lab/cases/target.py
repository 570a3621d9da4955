"""The SRP target: how it is reached, what it is made of according to LIO, who is logged in."""

import pathlib

from .command import attempt, run

RUN = pathlib.Path("/run/lab")
CONFIG = pathlib.Path("/sys/kernel/config/target")
ON_WIRE = "lab.host=" in pathlib.Path("/proc/cmdline").read_text()
THERE = ("on-target",) if ON_WIRE else ()
DISKS = (0, 1, 2, 3, 5, 8, 9, 300, 16684)
READ_ONLY = 8
THIN = 5
ENCLOSURE = 16


def environment(name="target"):
    return dict(line.split("=", 1) for line in (RUN / f"{name}.env").read_text().splitlines())


def line(**changes):
    """The target as add_target text, with keys replaced or added."""
    env = environment()
    keys = {"id_ext": env["ID_EXT"], "ioc_guid": env["IOC_GUID"], "dest": env["DEST4"]} | changes
    return ",".join(f"{key}={value}" for key, value in keys.items() if value is not None)


def port_name(initiator_ext):
    """Our initiator port as an ACL names it."""
    return f"0x{initiator_ext:016x}{environment('fabric')['GUID']}"


def script(name, limit=90):
    """A script of lab/guest, run where the target is."""
    return run(*THERE, name, limit=limit)


def sessions():
    out = script("target-sessions").out
    return [entry.split()[1] for entry in out.splitlines() if entry.startswith("session ")]


def make_ready():
    """Fabric and target, unless they are up."""
    if not (RUN / "fabric.env").exists():
        run("fabric-up", limit=120)
    if not (RUN / "target.env").exists() and not ON_WIRE:
        run("target-up", limit=120)


def rebuild():
    """After a case that failed: the target anew, without its sessions."""
    attempt(*THERE, "target-restart", limit=120)


def attributes(lun):
    """What LIO itself says about a LUN's backstore."""
    (folder,) = CONFIG.glob(f"core/*_{lun}/*/attrib")
    wanted = ("block_size", "emulate_write_cache", "emulate_fua_write", "is_nonrot", "optimal_sectors")
    return {name: int((folder / name).read_text()) for name in wanted}


def make_many(luns):
    """Ramdisks without memory (nullio), which exist to be many, unless they are there; no initiator port sees them yet."""
    for lun in luns:
        folder = portal_group() / "lun" / f"lun_{lun}"
        if folder.exists():
            continue
        store = CONFIG / "core" / f"rd_mcp_{lun}" / "null"
        store.mkdir(parents=True)
        (store / "control").write_text("rd_pages=4096,rd_nullio=1")
        (store / "enable").write_text("1")
        folder.mkdir()
        (folder / "null").symlink_to(store)


def allow(initiator_ext, luns):
    """Lets one more initiator port in, which sees these LUNs alone."""
    acl = portal_group() / "acls" / port_name(initiator_ext)
    acl.mkdir()
    for lun in luns:
        mapped = acl / f"lun_{lun}"
        mapped.mkdir(exist_ok=True)
        if not (mapped / "lun").exists():
            (mapped / "lun").symlink_to(portal_group() / "lun" / f"lun_{lun}")


def portal_group():
    gid = "0x" + environment("fabric")["GID"].replace(":", "")
    return CONFIG / "srpt" / gid / gid
