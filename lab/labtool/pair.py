"""Two guests on one virtual wire: an SRP target and an initiator, each with a network card and soft-RoCE on it.

    with pair.boot(Settings(kernel="6.12")) as both:
        both.initiator.run([...])
        both.target.run(["target-sessions"])
        both.initiator.set_link(False)

The wire is a pair of datagram sockets, so either guest may be ended and started again on its own.
"""

import contextlib
import dataclasses
import time

from . import options, qemu, service
from .guest import Guest

TARGET, INITIATOR = 1, 2


def _wire(folder, number):
    here, there = folder / f"wire.{number}", folder / f"wire.{TARGET + INITIATOR - number}"
    return [
        "-netdev", f"dgram,id=wire,local.type=unix,local.path={here},remote.type=unix,remote.path={there}",
        "-device", f"virtio-net-pci,id=nic,netdev=wire,mac=52:54:00:5a:00:{number:02x},host_mtu=9000",
    ]  # fmt: skip


def settings_for(settings, wire_folder, number):
    """The settings of one end of the wire; only the initiator gets the shared folders."""
    (wire_folder / f"wire.{number}").unlink(missing_ok=True)
    changes = {"network": _wire(wire_folder, number), "append": f"{settings.append} lab.host={number}"}
    if number == TARGET:
        changes |= {"out": None, "memory": min(settings.memory, 2048)}
    return dataclasses.replace(settings, **changes)


def set_up(target, initiator):
    """Fabric on both ends, the target on one, and its description on the other."""
    for guest in (target, initiator):
        guest.check(["fabric-up"], options.SETUP_LIMIT)
    target.check(["target-up"], options.SETUP_LIMIT)
    description = target.check(["cat", "/run/lab/target.env"]).stdout
    initiator.check(["sh", "-c", "cat > /run/lab/target.env"], stdin=description)


class Pair:
    def __init__(self, target, initiator, boot_seconds):
        self.target = target
        self.initiator = initiator
        self.boot_seconds = boot_seconds


@contextlib.contextmanager
def boot(settings):
    started = time.monotonic()
    wire_folder = qemu.new_folder()
    with contextlib.ExitStack() as stack:
        stack.callback(qemu.remove_folder, wire_folder)
        target = stack.enter_context(Guest.start(settings_for(settings, wire_folder, TARGET)))
        initiator = stack.enter_context(Guest.start(settings_for(settings, wire_folder, INITIATOR)))
        target.wait()
        initiator.wait()
        set_up(target, initiator)
        both = Pair(target, initiator, time.monotonic() - started)
        service.serve(both)
        yield both
