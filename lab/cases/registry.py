"""What a case is, and where its name comes from: module/function, as in errors_usage/daemon-not-running."""

import importlib
from dataclasses import dataclass

MODULES = (
    "zoo", "discovery", "files", "force", "io", "detach", "cycles", "sessions", "peer", "native", "ipv6", "restart", "shutdown",
    "crash", "errors_host", "errors_target", "errors_usage", "wire", "channels", "exposure", "stuck", "placement",
)  # fmt: skip


@dataclass
class Case:
    name: str
    function: object
    limit: int  # seconds
    full_limit: int  # the same with --full
    smoke: bool  # also on the oldest kernel by default
    pair: bool  # needs a wire: runs in the initiator of a pair of guests


CASES = []


def case(limit=90, full_limit=None, smoke=False, pair=False):
    """Makes a function with one parameter, the Bench, a case. Its docstring says what it proves."""

    def register(function):
        name = f"{function.__module__.rpartition('.')[2]}/{function.__name__.replace('_', '-')}"
        CASES.append(Case(name, function, limit, full_limit or limit, smoke, pair))
        return function

    return register


def all_cases():
    for module in MODULES:
        importlib.import_module(f"cases.{module}")
    return CASES


def named(name):
    importlib.import_module(f"cases.{name.partition('/')[0]}")
    for found in CASES:
        if found.name == name:
            return found
    raise SystemExit(f"there is no case {name}")
