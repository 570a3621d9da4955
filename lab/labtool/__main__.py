"""python3 -m labtool SUBCOMMAND ...: what the scripts in lab/ call."""

import importlib
import os
import sys

SUBCOMMANDS = ("image", "run", "vm", "shell", "test", "bench")


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in SUBCOMMANDS:
        sys.exit(f"usage: labtool {'|'.join(SUBCOMMANDS)} ...")
    module = importlib.import_module("." + sys.argv[1], __package__)
    try:
        code = module.main(sys.argv[2:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    sys.exit(code)


main()
