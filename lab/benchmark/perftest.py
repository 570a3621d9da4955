"""What the port itself gives, by perftest."""

import subprocess
import time

from cases.command import Failed, attempt


def measured(program, size, options, limit):
    """The columns perftest prints for a size."""
    words = [program, "-d", "rxe0", "-x", "1", "-F", "-s", str(size), *options]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    outcome = attempt(*words, "10.9.0.1", limit=limit)
    server.terminate()
    server.wait(10)
    rows = [line.split() for line in outcome.out.splitlines() if line.split()[:1] == [str(size)]]
    if outcome.code or not rows:
        raise Failed(outcome.told())
    return [float(column) for column in rows[-1]]


def limits(seconds):
    lasting = ("-D", str(seconds))
    return {
        "read 256 KiB, MB/s": measured("ib_read_bw", 262144, lasting, 60 + seconds)[3],
        "read 4 KiB, messages/s": measured("ib_read_bw", 4096, lasting, 60 + seconds)[4] * 1e6,
        "send 4 KiB, us one way": measured("ib_send_lat", 4096, ("-n", "500"), 60 + seconds)[5],
    }


def reads(queue_pairs, seconds, together):
    """Messages of 4 KiB a second, `together` of them under way over all queue pairs."""
    options = ("-D", str(seconds), "-q", str(queue_pairs), "-t", str(together // queue_pairs))
    return measured("ib_read_bw", 4096, options, 60 + seconds)[4] * 1e6
