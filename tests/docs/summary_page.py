"""The table README.md opens with, and what `vkemu compare` says of soundness: `python -m
tests.docs.summary_page` writes both anew.

Which policy is sound is what the recorded matrix says, what it costs is counted now.
"""

from __future__ import annotations

import importlib
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from vkemu.compare.measure import Series, measure
from vkemu.matrix import Cell, Question, answer

from vkhost.rmap import POLICIES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RECORDED = ROOT / "tests" / "matrix" / "recorded.json"
BROKEN = ROOT / "tools" / "vkemu" / "compare" / "broken.json"
BEGIN = "| Reverse map |"
END = "\n\n"
EXACT: Final = "pv_entry"
# The smallest sizes at which each growth shows.
SIZES: Final = {
    "mappings": (1, 4, 16, 64), "vmspaces": (1, 4, 16, 64), "pages": (64, 256, 1024, 4096),
}  # fmt: skip


def rows() -> list[str]:
    broken = breaks()
    lines = [
        f"{BEGIN} The design | Sound? | One page reclaimed | Memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for policy in sorted(POLICIES, key=lambda name: (name != EXACT, bool(broken[name]), name)):
        if policy == "removed":
            lines.append(f"| `{policy}` | {design(policy)} | nothing to break | – | – |")
            continue
        found = {axis: measure(axis, policy, sizes=sizes) for axis, sizes in SIZES.items()}
        own = broken[policy]
        sound = f"**no**: {', '.join(own)}" if own else "yes"
        lines.append(
            f"| `{policy}` | {design(policy)} | {sound} | {cost(found)} | {memory(found)} |"
        )
    return lines


def breaks() -> dict[str, list[str]]:
    """The windows that fail on a policy and not on the exact map in the same tree: its own."""
    cells = msgspec.json.decode(RECORDED.read_bytes(), type=list[Cell])
    failing: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        if cell.verdict == "fail" and not cell.variant and not _exact_fails(cell.test, cell.tree):
            failing[cell.policy].append(cell.window)
    return failing


@cache
def _exact_fails(test: str, tree: str) -> bool:
    return answer(Question("", test, "", EXACT, tree=tree)).verdict == "fail"


def broken() -> str:
    """broken.json: a policy a line."""
    found = breaks()
    rows = (f' "{policy}": {json.dumps(found[policy])}' for policy in sorted(POLICIES))
    return "{\n" + ",\n".join(rows) + "\n}\n"


def design(policy: str) -> str:
    """The first sentence of its module."""
    text = " ".join((importlib.import_module(f"vkhost.rmap.{policy}").__doc__ or "").split())
    return re.sub(r" \(\[\w+\]\)", "", text.partition(". ")[0].rstrip("."))


def cost(found: dict[str, Series]) -> str:
    ns = found["mappings"].samples[0].ns
    grows = [series.growth for series in found.values() if series.growth != "O(1)"]
    return f"{ns / 1000:.1f} us, {', '.join(grows) or 'O(1)'}"


def memory(found: dict[str, Series]) -> str:
    """Bytes for one more mapping; else for one more address space."""
    for axis, what in (("pages", "a mapping"), ("vmspaces", "an address space")):
        first, *_, last = found[axis].samples
        grown = last.counts["rmap_bytes"] - first.counts["rmap_bytes"]
        if grown:
            return f"{grown / (last.size - first.size):,.0f} bytes {what}"
    return "0"


def main() -> None:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + "\n".join(rows()) + END + after)
    BROKEN.write_text(broken())


if __name__ == "__main__":
    main()
