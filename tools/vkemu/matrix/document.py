"""docs/windows.md, out of the litmus files and a computed matrix:

`vkemu matrix --all-variants --json > tests/matrix/recorded.json`, and then
`vkemu matrix --read tests/matrix/recorded.json --markdown > docs/windows.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vkemu.launch.scenario import read_document
from vkemu.litmus.file import Litmus, read, shipped
from vkemu.matrix import elsewhere
from vkemu.matrix.cell import Cell, not_applicable

# What a vkernel asks the host about its vmspaces, or the host does to a map of guest addresses.
CALLS = (
    "mcontrol", "setmap", "mmap", "munmap", "vcreate", "vdestroy", "vinval", "vrun",
    "respawn", "fork", "private", "anonymous", "msync", "rss", "hold", "setvm",
)  # fmt: skip

HEAD = """\
# The windows, and which policy leaves which open

Generated: `vkemu matrix --read tests/matrix/recorded.json --markdown`. Every verdict was decided by
running the test; `vkemu matrix` decides them again. **FAIL** has a witness that `vkemu replay`
replays, a number is how many interleavings that differ there are, all of them explored, *bounded*
means that none was found to fail within the bound that is said, and – that the question does not
arise, for the reason that is said. A row with a `+` is a variant: the kernel without the interlock,
a guest that misbehaves, a kernel with a defect.
"""


def document(cells: Sequence[Cell]) -> str:
    by_window: dict[str, list[Cell]] = {}
    for cell in cells:
        by_window.setdefault(cell.window, []).append(cell)
    parts = [HEAD, "\n".join(summary(cells)) + "\n", "\n".join(elsewhere.section()) + "\n"]
    for path in shipped():
        litmus = read(read_document(path), path)
        found = by_window.get(litmus.file.litmus.window)
        if found:
            parts.append("\n".join(section(litmus, found)) + "\n")
    return "\n".join(parts)


def summary(cells: Sequence[Cell]) -> Iterator[str]:
    """One screen: the windows that are not closed on every policy, the kernels as they are."""
    plain = [cell for cell in cells if not cell.variant]
    columns = list(dict.fromkeys(cell.policy for cell in plain))
    rows: dict[str, dict[str, Cell]] = {}
    for cell in plain:
        rows.setdefault(cell.window, {})[cell.policy] = cell
    shown = {
        window: row
        for window, row in rows.items()
        if any(cell.verdict in ("fail", "bounded") for cell in row.values())
    }
    yield "## In one screen"
    yield ""
    yield "| | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for window, row in shown.items():
        yield f"| {window} | " + " | ".join(_sign(row.get(policy)) for policy in columns) + " |"
    yield ""
    closed = ", ".join(window for window in rows if window not in shown)
    yield "×: open. ✓: closed, exhausted. ?: not exhausted. –: does not arise."
    yield f"Closed on all of them: {closed or '-'}."


def _sign(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return {"fail": "**×**", "pass": "✓", "bounded": "?"}.get(cell.verdict, "–")


def section(litmus: Litmus, cells: Sequence[Cell]) -> Iterator[str]:
    heading = litmus.file.litmus
    yield f"## {heading.window} {heading.title}"
    yield ""
    yield f"Breaks: {heading.breaks}."
    yield ""
    yield f"Test: `{litmus.name}`"
    yield ""
    for thread in litmus.file.thread:
        yield f"- {thread.name} ({thread.kind}): " + "; ".join(f"`{s}`" for s in thread.run)
    for condition in litmus.forbidden:
        yield f"- forbidden: `{condition.text}`"
    for variant in litmus.file.variant:
        about = variant.about or "mutants " + ", ".join(variant.mutants)
        yield f"- `+{variant.name}`: {about}"
    yield f"- {on_nested(litmus)}"
    yield ""
    yield from _table(cells)
    yield from _reasons(cells)


def on_nested(litmus: Litmus) -> str:
    """Which vkernel the column `nested` speaks of: one in VMM mode has no vmspaces on the host, and
    none of the calls that are about them."""
    if litmus.file.litmus.policies == ("nested",):
        return "`nested` is a vkernel in VMM mode here"
    if not_applicable(litmus, "nested"):
        return "`nested`: the question does not arise, below"
    said = {statement.verb for thread in litmus.threads for statement in thread.run}
    calls = ", ".join(f"`{verb}`" for verb in CALLS if verb in said)
    if calls:
        return f"`nested` is our own construction: in VMM mode there is nothing to say {calls} of"
    if "inval" in said:
        return (
            "`nested`: `inval` stands for what a vkernel in VMM mode does by itself, if it does it"
        )
    return "`nested` is a vkernel in VMM mode as much as our own construction"


def _table(cells: Sequence[Cell]) -> Iterator[str]:
    columns = list(dict.fromkeys(cell.policy for cell in cells))
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.name, {})[cell.policy] = cell
    yield "| | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(_text(row.get(policy)) for policy in columns) + " |"


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    match cell.verdict:
        case "fail":
            return "**FAIL**"
        case "pass":
            return f"{cell.executions:,}"
        case "bounded":
            return "*bounded*"
        case _:
            return "–"


def _reasons(cells: Sequence[Cell]) -> Iterator[str]:
    """Why it fails, each message once, and what bounds or excludes."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.verdict == "n/a":
            grouped.setdefault(("n/a", cell.reason), []).append(cell.policy)
        elif cell.verdict != "pass":
            grouped.setdefault((f"{cell.name} {cell.verdict}", cell.reason), []).append(cell.policy)
    if grouped:
        yield ""
    for (what, reason), where in grouped.items():
        names = ", ".join(dict.fromkeys(where))
        yield f"- {what} ({names}): {reason}"
