"""Operands of statements: what may stand where, checked against the machine before anything runs.

A verb's signature is its grammar: the annotation of a parameter says what its operand is, a default
that it may be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from vkprotocol.limits import RUN_BUDGET, U64
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vpte import VPTE_FRAME, VPTE_PAGE_ENTRIES

from vkemu.litmus.file import Litmus
from vkemu.litmus.statement import Arg, Register
from vkemu.litmus.tables import LEVELS, Tables, vpte_bits
from vkemu.verdict import UsageError

VA_END: Final = 1 << 47
PAGES_MAX: Final = VA_END // PAGE_SIZE
EVENTS_MAX: Final = 63  # events, and a guest's own locks
PASSES_MAX: Final = 10_000
PFN_MAX: Final = VPTE_FRAME >> 12


@dataclass(frozen=True, slots=True)
class Operand:
    """`form` stands for it in the reference, `means` says what it is; `mistake` what was expected
    where something else stands, and nothing where it is one."""

    form: str
    means: str
    mistake: Callable[[Litmus, Arg], str]


def _number(form: str, what: str, low: int, high: int) -> Operand:
    expected = f"{what}: {_shown(low)} to {_shown(high)}"

    def mistake(_: Litmus, arg: Arg) -> str:
        return "" if isinstance(arg, int) and low <= arg <= high else expected

    return Operand(form, expected, mistake)


def _shown(number: int) -> str:
    return str(number) if number < 1 << 20 else hex(number)


def choice(*words: str) -> Operand:
    """One of `words`."""
    expected = f"one of {', '.join(words)}"
    return Operand("|".join(words), expected, lambda _, arg: "" if arg in words else expected)


def _address(litmus: Litmus, arg: Arg) -> str:
    if isinstance(arg, int):
        fits = 0 <= arg < VA_END and arg % PAGE_SIZE == 0
        return "" if fits else f"a multiple of 4096 below {VA_END:#x}, or a [va.NAME]"
    return "" if arg in litmus.file.va else _names("a [va.NAME]", litmus.file.va)


def _table(litmus: Litmus, arg: Arg) -> str:
    """Where a VPTE is known only if its tables are there."""
    if isinstance(arg, int):
        mistake = _address(litmus, arg)
        return mistake or (
            "" if _covers(litmus.tables(), arg) else "an address that some [va.NAME] has tables for"
        )
    return _address(litmus, arg)


def _covers(tables: Tables, va: int) -> bool:
    known = len(tables.words)
    try:
        tables.slot(va)
    except ValueError:
        return False
    return len(tables.words) == known


def _page(litmus: Litmus, arg: Arg) -> str:
    if isinstance(arg, int):
        last = litmus.image_pages - 1
        return "" if 0 <= arg <= last else f"a page of the image: 0 to {last}, or a [page.NAME]"
    return "" if arg in litmus.file.page else _names("a [page.NAME]", litmus.file.page)


def _vpte_page(litmus: Litmus, arg: Arg) -> str:
    if isinstance(arg, int):
        return "" if 0 <= arg <= PFN_MAX else f"a page number: 0 to {PFN_MAX:#x}"
    return _page(litmus, arg)


def _names(what: str, known: dict[str, Any]) -> str:
    return f"{what} ({', '.join(known) or 'there is none'})"


def _bits(_: Litmus, arg: Arg) -> str:
    try:
        vpte_bits(str(arg), "")
    except UsageError:
        return "VPTE bits, e.g. V|RW|U|A|M"
    return ""


def _word(_: Litmus, arg: Arg) -> str:
    if isinstance(arg, Register) or (isinstance(arg, int) and 0 <= arg <= U64):
        return ""
    return f"a word: 0 to {U64:#x}, or a register written before"


def _running(litmus: Litmus, arg: Arg) -> str:
    cpus = litmus.running_cpus
    return "" if arg in cpus else f"a CPU that runs a thread: {', '.join(map(str, cpus)) or 'none'}"


def _thread(kind: str) -> Callable[[Litmus, Arg], str]:
    def mistake(litmus: Litmus, arg: Arg) -> str:
        there = [thread.name for thread in litmus.threads if thread.kind == kind]
        return "" if arg in there else f"a thread of kind {kind} ({', '.join(there) or 'none'})"

    return mistake


Child: TypeAlias = Annotated[str, Operand("CHILD", "a thread of kind `child`", _thread("child"))]
Image: TypeAlias = Annotated[str, Operand("IMAGE", "a thread of kind `image`", _thread("image"))]
Va: TypeAlias = Annotated[
    Any, Operand("VA", "an address: a `[va.NAME]`, or a multiple of 4096", _address)
]
Vpte: TypeAlias = Annotated[
    Any, Operand("VA", "an address: a `[va.NAME]`, or a multiple of 4096", _table)
]
Page: TypeAlias = Annotated[
    Any, Operand("PAGE", "a page of the memory image: a `[page.NAME]`, or its number", _page)
]
VptePage: TypeAlias = Annotated[
    Any,
    Operand("PAGE", "what a VPTE names: a `[page.NAME]`, or any page number", _vpte_page),
]
Bits: TypeAlias = Annotated[
    str, Operand("BITS", "VPTE bits with `|` between: V, RW, U, A, M, ...", _bits)
]
Word: TypeAlias = Annotated[
    int, Operand("WORD", "a word of 64 bits, or a register written before", _word)
]
Level: TypeAlias = Annotated[
    int,
    Operand(
        "LEVEL",
        "index bits below the table: 0, 9, 18 or 27",
        lambda _, arg: "" if arg in LEVELS else "a level: 0, 9, 18 or 27",
    ),
]
RunningCpu: TypeAlias = Annotated[
    int, Operand("CPU", "a CPU that a user or guest thread runs on", _running)
]
Index: TypeAlias = Annotated[
    int, _number("INDEX", "which word of the page", 0, VPTE_PAGE_ENTRIES - 1)
]
Pages: TypeAlias = Annotated[int, _number("PAGES", "how many pages", 0, PAGES_MAX)]
EventNo: TypeAlias = Annotated[int, _number("EVENT", "an event", 0, EVENTS_MAX)]
LockNo: TypeAlias = Annotated[int, _number("LOCK", "a lock", 0, EVENTS_MAX)]
Passes: TypeAlias = Annotated[int, _number("PASSES", "passes", 0, PASSES_MAX)]
Limit: TypeAlias = Annotated[int, _number("LIMIT", "pages", 0, PAGES_MAX)]
VmspaceId: TypeAlias = Annotated[int, _number("ID", "the id of a vmspace", 0, U64)]
Budget: TypeAlias = Annotated[int, _number("BUDGET", "instructions", 1, RUN_BUDGET)]
