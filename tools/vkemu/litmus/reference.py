"""The verbs and keys of litmus tests, out of what checks them: `vkemu explore --verbs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vkemu.launch.reference import TABLES as SCENARIO
from vkemu.launch.scenario import read_document
from vkemu.litmus import verbs  # noqa: F401 - they register
from vkemu.litmus.actor import VERBS, Entry
from vkemu.litmus.file import (
    Address,
    Heading,
    LitmusHost,
    OutcomeTable,
    Page,
    ThreadTable,
    Variant,
    read,
    shipped,
)
from vkemu.litmus.operand import Operand

TABLES: tuple[tuple[str, Any], ...] = (
    ("[litmus]", Heading),
    ("[page.NAME]", Page),
    ("[va.NAME]", Address),
    ("[[thread]]", ThreadTable),
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
}


def operands() -> Iterator[Operand]:
    """Each that a verb has, once."""
    seen: set[tuple[str, str]] = set()
    for entry in VERBS.values():
        for operand in entry.operands.values():
            if (operand.form, operand.means) not in seen and "|" not in operand.form:
                seen.add((operand.form, operand.means))
                yield operand


def about(entry: Entry) -> str:
    return " ".join((entry.do.__doc__ or "").split())


def examples() -> dict[str, str]:
    """verb -> a statement of a shipped test that uses it."""
    found: dict[str, str] = {}
    for path in shipped():
        litmus = read(read_document(path), path)
        for test in (litmus, *litmus.variants()):
            for thread in test.threads:
                for said in thread.run:
                    where = litmus.file.litmus.window
                    found.setdefault(said.verb, f"`{said.text}` ({where})")
    return found


def lines() -> Iterator[str]:
    """For a terminal."""
    for kind, what in KINDS.items():
        yield f"{kind}: {what}"
        for name, entry in VERBS.items():
            if kind in entry.kinds:
                yield f"    {f'{name} {entry.form}'.rstrip():<34} {about(entry)}".rstrip()
        yield ""
    for operand in operands():
        yield f"{operand.form:<8} {operand.means}"


def markdown() -> Iterator[str]:
    used = examples()
    yield "| Verb | Threads | | Example |"
    yield "| --- | --- | --- | --- |"
    for name, entry in VERBS.items():
        form = f"{name} {entry.form}".rstrip().replace("|", "\\|")
        kinds = ", ".join(entry.kinds)
        example = used.get(name, "").replace("|", "\\|")
        yield f"| `{form}` | {kinds} | {about(entry)} | {example} |".replace("|  |", "| |")
    yield ""
    yield "| Operand | |"
    yield "| --- | --- |"
    for operand in operands():
        yield f"| `{operand.form}` | {operand.means.replace('|', chr(92) + '|')} |"
