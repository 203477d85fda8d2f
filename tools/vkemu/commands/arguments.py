"""Types of options: what is not one of the values expected is one line that says what is."""

from __future__ import annotations

import math
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Final

JOBS_MAX: Final = 256
SEED_MAX: Final = (1 << 64) - 1
SHOWN: Final = 40  # characters of a value, in a message


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A number written in digits, from `least` to `most`."""
    expected = f"at least {least}" if most is None else f"{least} to {most}"
    count_max = 10**15
    bound = count_max if most is None else most

    def number(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]+", text):
            raise ArgumentTypeError(f"{clipped(text)}, expected a number, {expected}")
        # Much longer ones Python refuses to read; none is in any range.
        if len(text) > SHOWN or not least <= int(text) <= bound:
            raise ArgumentTypeError(f"{clipped(text)[1:-1]}, expected {expected}")
        return int(text)

    return number


positive = whole(1)
count = whole(0)
jobs = whole(1, JOBS_MAX)
seed = whole(0, SEED_MAX)


def seconds(text: str) -> float:
    value = _real(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{clipped(text)}, expected seconds, more than 0")
    return value


def between(low: float, high: float = math.inf) -> Callable[[str], float]:
    """A number from `low` to `high`."""
    expected = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"

    def number(text: str) -> float:
        value = _real(text)
        if not low <= value <= high:
            raise ArgumentTypeError(f"{clipped(text)}, expected {expected}")
        return value

    return number


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def names(text: str) -> list[str]:
    """Names with commas between, at least one, each once."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ArgumentTypeError(f"{clipped(text)}, expected names with commas between")
    if len(set(found)) < len(found):
        raise ArgumentTypeError(f"{clipped(text)}, expected each once")
    return found


OWN_POLICIES: Final[set[str]] = set()  # those of files, which no other process knows


def policy(text: str) -> str:
    """The name of a reverse map; one in a file of its own is known by its name from here on."""
    if not text.endswith(".py"):
        return name(text)
    from vkemu.matrix.design import register

    found = register(text)
    OWN_POLICIES.add(found)
    return found


def name(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("'', expected a name")
    return text


def path(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("'', expected a path")
    return Path(text)


def add_faults(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--fault",
        type=fault,
        action="append",
        default=[],
        metavar="KIND[:KEY=VALUE,...]",
        help="a fault of a disk, a CPU or a guest, as swap-write:at=3; instead of the file's",
    )


def fault(text: str) -> str:
    """`swap-write:at=3,times=0` as a [[fault]] in TOML, on one line."""
    kind, *pairs = re.split("[:,]", text)
    words = [("kind", kind)]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[a-z]+", key):
            raise ArgumentTypeError(f"{clipped(text)}, expected KIND or KIND:KEY=VALUE,...")
        words.append((key, value))
    if len(dict(words)) < len(words):
        raise ArgumentTypeError(f"{clipped(text)}, expected each key once")
    inner = ", ".join(f"{key} = {_number_or_string(value)}" for key, value in words)
    return f"{{{inner}}}"


def _number_or_string(value: str) -> str:
    if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return value
    if not re.fullmatch(r"[\w.-]*", value):
        raise ArgumentTypeError(f"{clipped(value)}, expected a number or a name")
    return f'"{value}"'


def token_in(what: str) -> str:
    """`what`, or the token that a file of that name holds: alone, as `vkemu step` saves it, or in
    the command of a failure.txt, which may go over several lines; of a folder, that of its own."""
    from vkemu.record.rundir import FAILURE, SUMMARY

    token_bytes = 1 << 20  # of a file with a token
    path = Path(what)
    try:
        if path.is_dir():
            path /= SUMMARY if (path / SUMMARY).exists() else FAILURE
        with path.open("rb") as file:
            raw = file.read(token_bytes)
    except (OSError, ValueError):
        return what
    word = (
        re.fullmatch(rb"\s*(vk[a-z]?1\.[\w.-]+)\s*", raw)
        or re.search(rb'"token": "(vk[ls]1\.[\w.-]+)"', raw)  # of a run, its folder is asked
        or re.search(rb"^ replay: vkemu .*?(vk[a-z]?1\.[\w.-]+)$", unfolded(raw), re.MULTILINE)
    )
    return what if word is None else word[1].decode()


def unfolded(raw: bytes) -> bytes:
    """A command that goes over several lines as one, as a shell reads it."""
    return raw.replace(b"\\\n", b"")


def setting(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("'', expected KEY=VALUE")
    return text


def clipped(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def chosen(args: Namespace) -> tuple[tuple[str, str | None], ...]:
    """The options that say on what a test is to run, as they were given."""
    return ("--policy", args.policy), ("--tree", args.tree), ("--variant", args.variant)
