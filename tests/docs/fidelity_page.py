"""docs/fidelity.md, of the docstrings and the table of switches.

`python -m tests.docs.fidelity_page` writes it anew.

`dragonfly.tsv` says which functions there are in which tree. It was made by looking for them in the
trees, not by reading our docstrings: what a docstring cites and no tree has, shows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from vkhost.quirks import AS_IN
from vkhost.tree import TREES

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "fidelity.md"
TABLE = Path(__file__).parent / "dragonfly.tsv"
KERNELS = ("vkhost", "vkguest")
TABLES = "## The switches"

# `vm_map.c:vm_map_lookup, vm_map_delete`: names after the first have an underscore, unlike words.
CITATION = re.compile(
    r"\b([a-z]\w*\.[ch])`?:\s*([A-Za-z_]\w*)((?:,\s+[A-Za-z_]\w*_\w*(?![\w.:]))*)"
)

Cited = tuple[str, str]  # file, function


def citations() -> dict[Cited, list[str]]:
    """What the docstrings of the two kernels cite, and the modules that do."""
    found: dict[Cited, list[str]] = {}
    for kernel in KERNELS:
        for path in sorted((TOP / kernel).rglob("*.py")):
            where = str(path.relative_to(TOP))
            for cited in _cited(path.read_text()):
                modules = found.setdefault(cited, [])
                if where not in modules:
                    modules.append(where)
    return found


def _cited(source: str) -> Iterator[Cited]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        text = ast.get_docstring(node) if isinstance(node, documented) else None
        for match in CITATION.finditer(text or ""):
            for name in (match[2], *re.findall(r"\w+", match[3])):
                yield match[1], name


def known() -> dict[Cited, str]:
    """The table: a function and the trees that have it."""
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()]
    return {(file, name): trees for file, name, trees in rows}


def markdown() -> str:
    """All of the page that is made."""
    lines = [TABLES, "", "| switch | " + " | ".join(TREES) + " | as it should be |"]
    lines.append("| --- " * (len(TREES) + 2) + "|")
    for name, as_in in AS_IN.items():
        lines.append(f"| `{name}` | " + " | ".join(map(_text, as_in)) + " |")
    lines += ["", "## The functions", "", "| DragonFly | trees | here |", "| --- | --- | --- |"]
    trees = known()
    for (file, name), modules in sorted(citations().items()):
        here = ", ".join(f"`{module}`" for module in modules)
        lines.append(f"| `{file}:{name}` | {trees.get((file, name), '?')} | {here} |")
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return str(value)


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(TABLES)] + markdown())
