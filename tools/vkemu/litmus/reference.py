"""The verbs and keys of litmus tests, out of what checks them: `vkemu explore --verbs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vkemu.launch.reference import TABLES as SCENARIO
from vkemu.launch.scenario import read_document
from vkemu.litmus import verbs  # noqa: F401 - they register
from vkemu.litmus.actor import CALLS, VERBS, Entry
from vkemu.litmus.document import (
    Address,
    BeforeTable,
    File,
    GuestTable,
    Heading,
    LitmusHost,
    OutcomeTable,
    Page,
    ThreadTable,
    Variant,
)
from vkemu.litmus.file import of_guest, read, shipped
from vkemu.litmus.operand import Operand

TABLES: tuple[tuple[str, Any], ...] = (
    ("", File),
    ("[litmus]", Heading),
    ("[page.NAME]", Page),
    ("[va.NAME]", Address),
    ("[[thread]]", ThreadTable),
    ("[[before]]", BeforeTable),
    ("[guest]", GuestTable),
    ("[outcome]", OutcomeTable),
    ("[[variant]]", Variant),
    ("[host]", LitmusHost),
    *(table for table in SCENARIO if table[0] == "[quirks]"),
)
KINDS = {
    "user": "code of the guest's process, on its virtual CPU: every access goes through the TLB",
    "guest": "the vkernel on a virtual CPU of its own: its edits are stores through its DMAP",
    "fault": "a fault worker of the host, for the guest's process",
    "pageout": "the host's pageout daemon",
    "host": "any other thread of the host kernel",
    "process": "with a [guest]: an lwp of its process, which is on a vCPU of its own at the start",
    "child": "what a process goes on with that `fork` makes",
    "image": "what a process goes on with after `exec`",
    "daemon": "the guest's page daemon, on a vCPU of its own",
}


def operands() -> Iterator[Operand]:
    """Each that a verb has, once."""
    seen: set[tuple[str, str]] = set()
    for entry in (*VERBS.values(), *CALLS.values()):
        for operand in entry.operands.values():
            if (operand.form, operand.means) not in seen and "|" not in operand.form:
                seen.add((operand.form, operand.means))
                yield operand


def written(name: str, entry: Entry) -> str:
    """The verb with all that it takes, as one would write it: `vset a X V|RW`."""
    said: dict[str, str] = {
        "VA": "a", "PAGE": "X", "BITS": "V|RW|U", "WORD": "7", "LEVEL": "0", "CPU": "0",
        "INDEX": "0", "PAGES": "1", "EVENT": "1", "LOCK": "1", "PASSES": "1", "LIMIT": "0",
        "ID": "1", "BUDGET": "8", "CHILD": "C", "IMAGE": "I",
    }  # fmt: skip
    words = (said.get(o.form, o.form.partition("|")[0]) for o in entry.operands.values())
    return " ".join((name, *words))


def about(entry: Entry) -> str:
    return " ".join((entry.do.__doc__ or "").split())


def examples(paths: Iterable[Path]) -> dict[str, str]:
    """verb -> a statement of a shipped test that uses it."""
    found: dict[str, str] = {}
    for path in paths:
        litmus = read(read_document(path), path)
        for test in (litmus, *litmus.variants()):
            for run in (test.before, *(thread.run for thread in test.threads)):
                for said in run:
                    where = litmus.file.litmus.window or litmus.name
                    found.setdefault(said.verb, f"`{said.text}` ({where})")
    return found


def lines() -> Iterator[str]:
    """For a terminal."""
    for kind, what in KINDS.items():
        yield f"{kind}: {what}"
        for name, entry in (*VERBS.items(), *CALLS.items()):
            if kind in entry.kinds:
                yield f"    {f'{name} {entry.form}'.rstrip():<34} {about(entry)}"
                yield f"    {'':<34} {written(name, entry)}"
        yield ""
    for operand in operands():
        yield f"{operand.form:<8} {operand.means}"


def markdown() -> Iterator[str]:
    yield from _table(VERBS, shipped())
    yield ""
    yield "With a `[guest]`:"
    yield ""
    yield from _table(CALLS, of_guest())
    yield ""
    yield "| Operand | |"
    yield "| --- | --- |"
    for operand in operands():
        yield f"| `{operand.form}` | {operand.means.replace('|', chr(92) + '|')} |"


def _table(known: dict[str, Entry], paths: Iterable[Path]) -> Iterator[str]:
    used = examples(paths)
    yield "| Verb | Threads | | Example |"
    yield "| --- | --- | --- | --- |"
    for name, entry in known.items():
        form = f"{name} {entry.form}".rstrip().replace("|", "\\|")
        kinds = ", ".join(entry.kinds)
        example = used.get(name, f"`{written(name, entry)}`").replace("|", "\\|")
        yield f"| `{form}` | {kinds} | {about(entry)} | {example} |".replace("|  |", "| |")
