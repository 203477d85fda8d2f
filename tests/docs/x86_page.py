"""The windows for EXECUTE in docs/machine-code.md: `python -m tests.docs.x86_page`. It needs the
extra x86."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vkemu.litmus.file import load_litmus, of_x86
from vkemu.matrix.cell import Cell, Question, answer
from vkemu.matrix.elsewhere import source

from vkhost.rmap import POLICIES

PAGE = Path(__file__).parents[2] / "docs" / "machine-code.md"
HEAD = "## Windows for EXECUTE\n"
NEXT = "\n## "


def row(name: str, variant: str, policies: Iterable[str]) -> dict[str, str]:
    """By policy: how many interleavings differ, all explored, or that one fails."""
    questions = (Question("", name, variant, policy, max_seconds=60.0) for policy in policies)
    return {question.policy: shown(answer(question)) for question in questions}


def shown(cell: Cell) -> str:
    if cell.exhausted:
        return str(cell.executions)
    return {"fail": "**×**", "n/a": "–"}.get(cell.verdict, "?")


def asked() -> list[tuple[str, str]]:
    tests = [(path.stem, load_litmus(path.stem)) for path in of_x86()]
    return [(name, v) for name, test in tests for v in ("", *(v.name for v in test.file.variant))]


def line(name: str, variant: str, cells: dict[str, str]) -> str:
    test = f"`{name}+{variant}`" if variant else f"`{name}`"
    return "| " + " | ".join((test, *cells.values())) + " |"


def section() -> str:
    lines = [
        HEAD,
        "Generated: `python -m tests.docs.x86_page`. `vkemu explore x86-edit` searches them, an",
        "instruction a step; they need the extra. A number: so many interleavings differ, all were",
        "explored, and none fails. ×: one does. –: it does not arise.",
        "",
    ]
    for path in of_x86():
        heading = load_litmus(path.stem).file.litmus
        lines.append(f"- `{path.stem}`: {heading.title} ({source(path).rstrip('.')}).")
        variants = load_litmus(path.stem).file.variant
        lines += [f"  - `{path.stem}+{v.name}`: {v.about}." for v in variants]
    lines += ["", f"| Test | {' | '.join(POLICIES)} |", "|---" * (len(POLICIES) + 1) + "|"]
    lines += [line(name, variant, row(name, variant, POLICIES)) for name, variant in asked()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text()
    start = text.index(HEAD)
    end = text.index(NEXT, start)
    PAGE.write_text(text[:start] + section() + text[end:])
