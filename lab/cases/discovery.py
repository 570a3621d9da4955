"""What discovery tells besides targets: names of this host, who listens, rules, and the name ibsrpdm."""

import os
import pathlib
import re
import tempfile

from . import daemon, target
from .command import attempt, check, equal, run
from .registry import case


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
    file = pathlib.Path("/etc/ublk-srp/config.toml")
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
    finally:
        file.unlink(missing_ok=True)
