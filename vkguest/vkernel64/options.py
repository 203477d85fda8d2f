"""The vkernel(7) options this vkernel has, and a plain answer to those it has not.

DragonFly vkernel64/platform/init.c:main, as patch #3389 leaves it: -m is mandatory, -i is ignored
with a warning. Sizes and messages are the original's, odd corners included: a size without suffix
is refused although the manual speaks of bytes, and what follows the suffix letter is not looked at.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from vkprotocol import limits
from vkprotocol.param import SEG_MASK, SEG_SIZE

MAXCPU: Final = limits.VCPUS

DEPRECATED_IMAGE: Final = (
    "WARNING: -i option is deprecated and ignored.\n"
    " Memory is now always anonymous (unlinked file)."
)
# Recognised, so that a vkernel(7) command line gets an answer and not a guess.
ABSENT: Final = {
    "c": ("file", "there are no CD images"),
    "d": (None, "there is no VMM mode to disable"),
    "I": ("interface", "there are no network devices"),
    "l": ("cpulock", "virtual CPUs are not locked to real ones"),
    "r": ("file", "there are no disks"),
    "R": ("file", "there are no disks"),
    "s": (None, "there is no single-user mode"),
    "t": (None, "there are no host timers to choose from"),
    "T": (None, "it does nothing in vkernel(7) either"),
    "U": (None, "kernel memory is always writable"),
}

_NUMBER: Final = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)")


class OptionError(ValueError):
    """The command line is wrong; the text is what the user is told."""


class Options(Struct, frozen=True, kw_only=True):
    """A vkernel(7) command line, understood. `warnings` are lines for standard error."""

    memory: int
    ncpus: int = 2
    lbits: int = 1
    cbits: int = 0
    environment: tuple[str, ...] = ()
    pidfile: str | None = None
    prezero: bool = False
    verbose: bool = False
    warnings: tuple[str, ...] = ()


def add_options(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    add("-m", dest="memory", metavar="size", help="system memory, with suffix K, M or G (required)")
    add("-n", dest="ncpus", metavar="numcpus[:lbits[:cbits]]", default="2", help="virtual CPUs (2)")
    add("-e", dest="environment", metavar="name=value:...", action="append", help="environment")
    add("-i", dest="image", metavar="file", help="(DEPRECATED) memory is now always anonymous")
    add("-p", dest="pidfile", metavar="file", help="pid file, kept locked while running")
    add("-z", dest="prezero", action="store_true", help="zero all memory before the kernel starts")
    add("-v", dest="verbose", action="store_true", help="verbose")
    for letter, (argument, why) in ABSENT.items():
        text = f"not emulated: {why}"
        if argument is None:
            add(f"-{letter}", dest=f"absent_{letter}", action="store_true", help=text)
        else:
            add(f"-{letter}", dest=f"absent_{letter}", metavar=argument, help=text)


def options_of(args: argparse.Namespace) -> Options:
    """What `add_options` has parsed. OptionError when vkernel(7) would not start with it."""
    for letter, (_, why) in ABSENT.items():
        if getattr(args, f"absent_{letter}"):
            raise OptionError(f"-{letter} is not emulated: {why}")
    memory = memory_size(args.memory or "")
    ncpus, lbits, cbits = topology(args.ncpus)
    return Options(
        memory=memory,
        ncpus=ncpus,
        lbits=lbits,
        cbits=cbits,
        environment=kern_envp(args.environment or ()),
        pidfile=args.pidfile,
        prezero=args.prezero,
        verbose=args.verbose,
        warnings=(DEPRECATED_IMAGE,) if args.image is not None else (),
    )


def memory_size(text: str) -> int:
    """-m as bytes; `text` is empty when it was not given."""
    if not text:
        raise OptionError("System memory size must be specified with -m")
    value, rest = strtoull(text)
    shift = {"g": 30, "m": 20, "k": 10}.get(rest[:1].lower())
    if shift is None:
        raise OptionError("Bad maxmem option")
    size = value << shift & limits.U64
    if size == 0:
        raise OptionError("System memory size must be specified with -m")
    memory_min = 64 << 20
    if size < memory_min or size & SEG_MASK:
        mega = SEG_SIZE >> 20
        raise OptionError(f"Bad maxmem specification: 64MB minimum, multiples of {mega}MB only")
    if size > limits.RAM_BYTES:
        raise OptionError(f"Bad maxmem specification: the DMAP spans {limits.RAM_BYTES >> 30}GB")
    return size


def topology(text: str) -> tuple[int, int, int]:
    """-n as (numcpus, lbits, cbits); bits left out are those of mp.c:mp_start."""
    numbers = []
    for token in filter(None, text.split(":")):  # strtok: empty tokens do not count
        value, rest = strtoull(token)
        if rest:
            raise OptionError(f"Bad number at '{rest}' in -n {text}")
        numbers.append(value)
    if not 1 <= len(numbers) <= 3:
        raise OptionError(f"-n takes numcpus[:lbits[:cbits]], not '{text}'")
    ncpus, *bits = numbers
    if not 1 <= ncpus <= MAXCPU:
        raise OptionError(f"Bad ncpus, valid range is 1-{MAXCPU}")
    bits_max = 8  # of an APIC id
    if any(n > bits_max for n in bits):
        raise OptionError(f"Bad topology, valid range of lbits and cbits is 0-{bits_max}")
    cpu_bits = max(1, (ncpus - 1).bit_length())
    lbits = bits[0] if bits else 1
    cbits = bits[1] if len(bits) > 1 else max(0, cpu_bits - lbits)
    return ncpus, lbits, cbits


def kern_envp(texts: Iterable[str]) -> tuple[str, ...]:
    """-e as name=value strings: colons part them, quotes protect colons and are dropped."""
    variables: list[str] = []
    for text in texts:
        quoted = 0
        variable = ""
        for char in text:
            if char == '"':
                quoted ^= 1
            elif char == "'":
                quoted ^= 2
            elif char == ":" and not quoted:
                variables.append(variable)
                variable = ""
            else:
                variable += char
        variables.append(variable)
    return tuple(filter(None, variables))


def strtoull(text: str) -> tuple[int, str]:
    """The C function, base 0: the number `text` begins with (hexadecimal, octal), and the rest."""
    match = _NUMBER.match(text)
    if match is None:
        return 0, text
    sign, digits = match.groups()
    digits_max = 21  # a decimal number of more does not fit in 64 bits: it starts with 1 to 9
    if digits[:2] in ("0x", "0X"):
        value, end = int(digits, 16), match.end()
    elif digits[0] == "0":
        octal = re.match("[0-7]+", digits)
        assert octal is not None
        value, end = int(octal[0], 8), match.start(2) + octal.end()
    else:  # saturates; int() refuses thousands of digits
        digits = digits[:digits_max]
        value, end = int(digits), match.end()
    value = min(value, limits.U64)
    return -value & limits.U64 if sign == "-" else value, text[end:]
