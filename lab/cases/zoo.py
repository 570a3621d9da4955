"""Every kind of LUN: which become disks, and whether these are as the target describes them."""

from . import daemon, target
from .command import check, equal, run
from .disk import Disk
from .registry import case

REMOTE_SIZE = {0: 256, 1: 128, 2: 128, 3: 128, 5: 1024, 8: 16, 9: 4, 300: 16, 16684: 16}  # MiB, as lab/guest/target.py


@case()
def listing(bench):
    """attach, list and show tell the same, as text and as JSON; what is no disk is left out and named."""
    assert bench.daemon
    report = daemon.answer("attach", target.line())
    equal("LUNs attached", sorted(int(each["lun"]) for each in report["devices"]), sorted(target.DISKS))
    equal("LUNs left out", [each["lun"] for each in report["skipped"]], [str(target.ENCLOSURE)])
    check(not report["skipped"][0]["failed"], "an enclosure is no failure")
    listed = daemon.answer("list")
    equal("list against attach", listed["devices"], sorted(report["devices"], key=lambda each: each["number"]))
    equal("sessions", len(listed["sessions"]), 1)
    session = listed["sessions"][0]
    equal("others", [each["lun"] for each in session["others"]], [str(target.ENCLOSURE)])
    equal("initiator port", session["initiator_port"], target.port_name(0))
    text = daemon.cli("list").out
    for device in listed["devices"]:
        shown = daemon.answer("show", device["path"])
        equal(f"show against list of {device['path']}", {key: shown[key] for key in device}, device)
        row = next(line for line in text.splitlines() if line.split()[0] == device["path"])
        check(device["lun"] in row and device["identifier"] in row and device["state"] in row, f"list says {row!r}")
    shown = daemon.cli("show", str(listed["devices"][0]["number"])).out
    check(listed["devices"][0]["identifier"] in shown and session["target"] in shown, shown)
    equal("devices in status", daemon.answer("status")["devices"], len(target.DISKS))
    bench.detach()
    equal("list in the end", daemon.answer("list"), {"devices": [], "sessions": []})


@case(smoke=True)
def attributes(bench):
    """The kernel shows each disk as LIO describes it."""
    for lun, disk in bench.attach().items():
        lio = target.attributes(lun)
        shown = daemon.answer("show", disk.number)
        cache = bool(lio["emulate_write_cache"])
        wanted = {
            "size": str(REMOTE_SIZE[lun] << 11),
            "ro": str(int(lun == target.READ_ONLY)),
            "queue/logical_block_size": str(lio["block_size"]),
            "queue/physical_block_size": str(lio["block_size"]),
            "queue/write_cache": "write back" if cache else "write through",
            "queue/fua": str(int(cache and lio["emulate_fua_write"])),
            "queue/rotational": str(int(shown["rotational"])),
            "queue/max_sectors_kb": str(shown["max_transfer"] >> 10),
        }
        # A RAM disk of LIO's has no optimum of its own; the kernel then shows one block.
        optimal = lio["optimal_sectors"] * lio["block_size"]
        if optimal < 1 << 31:
            wanted["queue/optimal_io_size"] = str(optimal)
            equal(f"optimal transfer of LUN {lun}", shown["optimal_transfer"], optimal)
        else:
            check("optimal_transfer" not in shown, f"LUN {lun} has no optimal transfer: {shown}")
        seen = {name: disk.attribute(name) for name in wanted}
        equal(f"sysfs of LUN {lun}", seen, wanted)
        check(not (lio["is_nonrot"] and shown["rotational"]), f"LUN {lun} does not rotate")
        equal(f"write cache of LUN {lun} in show", shown["write_cache"], cache)
        equal(f"size of LUN {lun} in show", shown["size"], REMOTE_SIZE[lun] << 20)
        check(shown["max_transfer"] >= 1 << 20, f"LUN {lun} takes no requests of 1 MiB: {shown['max_transfer']}")
        blockdev = run("blockdev", "--getsize64", "--getss", "--getro", disk.path).out.split()
        equal(f"blockdev of LUN {lun}", blockdev, [str(REMOTE_SIZE[lun] << 20), str(lio["block_size"]), wanted["ro"]])
    bench.detach()


@case()
def selection(bench):
    """--lun, --exclude and --read-only."""
    equal("--lun 0,3-7", sorted(bench.attach(None, "--lun", "0,3-7")), [0, 3, 5])
    bench.detach()
    left = sorted(set(target.DISKS) - {0, 1})
    equal("--exclude 0-1", sorted(bench.attach(None, "--exclude", "0-1")), left)
    bench.detach()
    disks = bench.attach(None, "--lun", "0,1", "--exclude", "1", "--read-only")
    equal("--lun 0,1 --exclude 1", sorted(disks), [0])
    equal("ro with --read-only", disks[0].attribute("ro"), "1")
    refused = daemon.attempt("dd", "if=/dev/zero", f"of={disks[0].path}", "bs=4096", "count=1", "oflag=direct")
    check(refused.code != 0, "a disk attached --read-only can be written")
    disks[0].read(1 << 20)
    bench.detach()


@case(smoke=True)
def by_discovery(bench):
    """discover finds the target, and its line is what attach takes from a pipe."""
    assert bench.daemon
    env = target.environment()
    found = daemon.answer("discover", "--rdma-cm-port", env["PORT"])
    check(env["IOC_GUID"] in str(found), f"discover does not name the controller: {found}")
    listing = run("ublk-srp", "discover").out
    check(env["IOC_GUID"] in listing and f"SRP.T10:{env['ID_EXT']}" in listing, listing)
    lines = run("ublk-srp", "discover", "-c", "--rdma-cm-port", env["PORT"]).out
    equal("lines found", lines, target.line() + "\n")
    run("ublk-srp", "attach", "-", "--lun", "0,1", stdin=lines)
    devices = daemon.answer("list")["devices"]
    equal("LUNs attached", sorted(each["lun"] for each in devices), ["0", "1"])
    for device in devices:
        Disk(device).check_works()
    bench.detach()
