"""What the port itself gives, by perftest."""

import contextlib
import pathlib
import subprocess

from cases.command import Failed, attempt, wait_until

PORT = 18515
LISTENS = "0A"  # /proc/net/tcp


def listening():
    tables = (pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    sockets = (line.split() for table in tables for line in table)
    return any(local.endswith(f":{PORT:04X}") and state == LISTENS for _, local, _, state, *_ in sockets)


@contextlib.contextmanager
def server(words):
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until("perftest's server listens", listening, 20)
        yield
    finally:
        process.terminate()
        process.wait(10)


def measured(program, size, options, limit):
    """The columns perftest prints for a size."""
    words = [program, "-d", "rxe0", "-x", "1", "-F", "-p", str(PORT), "-s", str(size), *options]
    with server(words):
        outcome = attempt(*words, "10.9.0.1", limit=limit)
    rows = [line.split() for line in outcome.out.splitlines() if line.split()[:1] == [str(size)]]
    if outcome.code or not rows:
        raise Failed(outcome.told())
    return [float(column) for column in rows[-1]]


def limits(seconds):
    lasting = ("-D", str(seconds))
    return {
        "read 256 KiB, MiB/s": measured("ib_read_bw", 262144, lasting, 60 + seconds)[3],
        "read 4 KiB, messages/s": measured("ib_read_bw", 4096, lasting, 60 + seconds)[4] * 1e6,
        "send 4 KiB, us one way": measured("ib_send_lat", 4096, ("-n", "500"), 60 + seconds)[5],
    }


def reads(queue_pairs, seconds, together):
    """Messages of 4 KiB a second, `together` of them under way over all queue pairs, each with a completion of its own."""
    options = ("-D", str(seconds), "-Q", "1", "-q", str(queue_pairs), "-t", str(together // queue_pairs))
    return measured("ib_read_bw", 4096, options, 60 + seconds)[4] * 1e6
