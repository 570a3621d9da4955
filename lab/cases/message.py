"""What a user is told when something does not work."""

import json
import re

from .command import check, equal


def check_told(outcome, code, *needles):
    """The exit code, and a message on standard error with all of the needles (regular expressions) in it."""
    print(outcome.told(), flush=True)
    equal(f"exit code of {' '.join(outcome.argv)}\n{outcome.err}", outcome.code, code)
    check(outcome.err.startswith("ublk-srp: "), f"no message of ublk-srp's own\n{outcome.told()}")
    check("panicked" not in outcome.err, outcome.told())
    for needle in needles:
        check(re.search(needle, outcome.err, re.I), f"the message lacks {needle!r}\n{outcome.told()}")


def check_told_in_json(outcome, code, kind):
    """The same failure with --json."""
    errors = [json.loads(line)["error"] for line in outcome.out.splitlines() if "error" in json.loads(line)]
    check(errors, f"no error in the JSON output\n{outcome.told()}")
    equal("kind and exit code in JSON", (errors[0]["kind"], errors[0]["exit_code"], outcome.code), (kind, code, code))
