"""lab/vm: guests that stay up between commands.

  start [options] NAME        boot a guest; with --pair also NAME-target, an SRP target on the same wire
  exec NAME [--time S] -- COMMAND...
                              run a command: output streamed, exit code returned, 124 after the time limit
  shell NAME                  a prompt
  cable NAME in|out           plug or pull the cable of a guest on a wire
  console NAME                the end of its console
  collect NAME FOLDER         dmesg, console and the daemon's logs
  stop NAME...                end guests
  list                        the guests that run
"""

import argparse
import pathlib
import sys

from . import options, pair, paths, qemu, shell
from .guest import Guest, GuestDied

KEEP = 4 * 3600


def folder_of(name):
    return paths.named_guests() / name


def running(name):
    folder = folder_of(name)
    guest = Guest(qemu.Machine(folder))
    if not guest.machine.alive():
        raise SystemExit(f"lab: no guest {name} is running")
    return guest


def start_one(name, settings):
    folder = folder_of(name)
    if folder.exists():
        if qemu.Machine(folder).alive():
            raise SystemExit(f"lab: guest {name} is running already")
        qemu.remove_folder(folder)
    folder.mkdir(mode=0o700, parents=True)
    return Guest.start(settings, folder)


def start(arguments):
    parse = options.add_guest_options(argparse.ArgumentParser(prog="lab/vm start"))
    parse.add_argument("--keep", type=int, default=KEEP, metavar="S", help="ended by itself after so long, default 4 h")
    parse.add_argument("name")
    chosen = parse.parse_args(arguments)
    settings = options.settings_of(chosen)
    settings.keep = chosen.keep
    started = []
    options.end_on_signals()
    try:
        if chosen.pair:
            folder_of(chosen.name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            wire = folder_of(chosen.name + ".wire")
            wire.mkdir(mode=0o700, exist_ok=True)
            started.append(start_one(chosen.name + "-target", pair.settings_for(settings, wire, pair.TARGET)))
            started.append(start_one(chosen.name, pair.settings_for(settings, wire, pair.INITIATOR)))
        else:
            started.append(start_one(chosen.name, settings))
        for guest in started:
            guest.wait()
        if chosen.pair:
            pair.set_up(*started)
    except BaseException:
        for guest in started:
            guest.stop()
        raise
    paths.say(f"guest {chosen.name} up after {started[-1].boot_seconds:.1f} s")


def execute(arguments):
    parse = argparse.ArgumentParser(prog="lab/vm exec")
    parse.add_argument("name")
    parse.add_argument("--time", type=float, metavar="S")
    parse.add_argument("command", nargs="+")
    chosen = parse.parse_args(arguments)
    options.end_on_signals()
    result = running(chosen.name).run(chosen.command, chosen.time, output=options.Output())
    return result.code


def stop(arguments):
    for name in arguments:
        for folder in (folder_of(name), folder_of(name + "-target"), folder_of(name + ".wire")):
            if folder.exists():
                Guest(qemu.Machine(folder)).stop()
    try:
        paths.named_guests().rmdir()
    except OSError:
        pass


def list_running(_arguments):
    for folder in sorted(paths.named_guests().glob("*")):
        if qemu.Machine(folder).alive():
            print(folder.name)


ACTIONS = {
    "start": start,
    "exec": execute,
    "shell": lambda args: shell.interact(running(args[0]), ["bash", "-l"]),
    "cable": lambda args: running(args[0]).set_link({"in": True, "out": False}[args[1]]),
    "console": lambda args: print(qemu.Machine(folder_of(args[0])).console_tail()),
    "collect": lambda args: running(args[0]).collect(pathlib.Path(args[1])),
    "stop": stop,
    "list": list_running,
}


def main(arguments):
    if not arguments or arguments[0] not in ACTIONS:
        sys.exit(__doc__)
    try:
        return ACTIONS[arguments[0]](arguments[1:])
    except (IndexError, KeyError):
        sys.exit(__doc__)
    except GuestDied as error:
        paths.say(error)
        return 125
