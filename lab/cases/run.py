"""python3 -m cases.run NAME [--full]: one case, in a guest. Exit code 0; 1 when it failed; 3 when it failed and the
guest is of no more use."""

import re
import subprocess
import sys
import traceback

from . import daemon, registry, target
from .bench import Bench
from .command import Failed, check

FAILED, WEDGED = 1, 3
KERNEL_TROUBLE = re.compile(
    r"BUG:|WARNING: .*at |Oops|general protection|blocked for more than|refcount_t:|scheduling while atomic|KASAN"
)


def kernel_log():
    return subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace").stdout.splitlines()


def log_tail(lines=40):
    print("--- the end of the daemon's log")
    try:
        text = daemon.LOG.read_text(errors="replace").splitlines()
    except OSError:
        text = []
    print("\n".join(line for line in text if " libublk::" not in line)[-lines * 160 :])
    print("--- the end of the kernel's log")
    print("\n".join([line for line in kernel_log() if "ib_srpt receiving failed" not in line][-lines:]))


def main():
    case = registry.named(sys.argv[1])
    daemon.LOG.write_bytes(b"")
    subprocess.run(["dmesg", "-C"])
    bench = Bench("--full" in sys.argv)
    try:
        target.make_ready()
        case.function(bench)
        bench.close()
        trouble = [line for line in kernel_log() if KERNEL_TROUBLE.search(line)]
        check(not trouble, "the kernel complained:\n" + "\n".join(trouble))
        return 0
    except Exception as error:
        if isinstance(error, Failed):
            where = [f"{frame.name} line {frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            print(f"{error}\n(in {', '.join(where[1:])})")
        else:
            traceback.print_exc(file=sys.stdout)
        log_tail()
        sys.stdout.flush()
        return FAILED if bench.sweep() else WEDGED


sys.exit(main())
