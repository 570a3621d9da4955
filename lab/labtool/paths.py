"""Where things are: the source tree, the cache, the built program."""

import os
import pathlib
import sys

LAB = pathlib.Path(__file__).resolve().parent.parent
TREE = LAB.parent
GUEST_SCRIPTS = LAB / "guest"


def cache():
    """The folder for everything that is kept between runs. Never in the tree."""
    chosen = os.environ.get("UBLK_SRP_LAB_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(base, "ublk-srp-lab")
    path = pathlib.Path(chosen)
    path.mkdir(parents=True, exist_ok=True)
    return path


def release_dir():
    """Cargo's release folder, or None when nothing was built yet."""
    target = os.environ.get("CARGO_TARGET_DIR") or TREE / "target"
    path = (TREE / target / "release").resolve()
    return path if path.is_dir() else None


def named_guests():
    """Folder of guests that outlive the command which started them."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base or not os.access(base, os.W_OK):
        base = "/tmp"
    return pathlib.Path(base) / f"ublk-srp-lab.{os.getuid()}"


def say(*words):
    """Progress for people: on stderr, so that a command's own output stays clean."""
    print("lab:", *words, file=sys.stderr, flush=True)
