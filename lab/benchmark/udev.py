"""The system's own interest in devices."""

import contextlib

from cases.command import run


@contextlib.contextmanager
def quiet():
    """Nothing is done about devices that were written, which is a ninth of the processors' time where two peers take turns of
    250 ms: udev asks a device anew whenever somebody who wrote it has closed it, and what it asks of one peer's falls in the
    next one's turn."""
    run("udevadm", "settle", "-t", "300", limit=310)
    run("udevadm", "control", "--stop-exec-queue")
    try:
        yield
    finally:
        run("udevadm", "control", "--start-exec-queue")
