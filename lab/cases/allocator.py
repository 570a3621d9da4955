"""Who calls the C library's allocator, by probes in it (the kernel's uprobes)."""

import contextlib
import ctypes
import pathlib

from .command import attempt, run

TRACING = pathlib.Path("/sys/kernel/tracing")
GROUP = "allocator"
CALLS = ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "free")


def place(function):
    """File and offset of a function of the C library, as this process has it mapped."""
    address = ctypes.cast(getattr(ctypes.CDLL(None), function), ctypes.c_void_p).value
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *name = line.split()
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= address < high:
            return f"{name[0]}:{address - low + int(offset, 16):#x}"
    raise LookupError(function)


@contextlib.contextmanager
def probes():
    if not (TRACING / "uprobe_events").exists():
        run("mount", "-t", "tracefs", "tracefs", TRACING)
    for call in CALLS:
        # Python looks for the end of what it appends to.
        run("sh", "-c", f"echo 'p:{GROUP}/{call} {place(call)}' >> {TRACING}/uprobe_events")
    try:
        yield
    finally:
        attempt("sh", "-c", f"echo 0 > {TRACING}/events/{GROUP}/enable; echo > {TRACING}/uprobe_events")


@contextlib.contextmanager
def calls_of(threads):
    """The calls these threads have made meanwhile, once it is over."""
    found = []
    folder = TRACING / "events" / GROUP
    wanted = " || ".join(f"common_pid == {thread}" for thread in threads)
    (TRACING / "trace").write_text("")
    (folder / "filter").write_text(wanted)
    (folder / "enable").write_text("1")
    try:
        yield found
    finally:
        (folder / "enable").write_text("0")
        found += [line.strip() for line in (TRACING / "trace").read_text().splitlines() if not line.startswith("#")]
