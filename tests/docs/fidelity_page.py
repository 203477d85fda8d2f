"""docs/fidelity.md, of the docstrings and the table of switches.

`python -m tests.docs.fidelity_page` writes it anew.

`dragonfly.tsv` says which functions there are in which tree (`dragonfly_table.py` looks for them
there): what a docstring cites and no tree has, shows.
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
LITMUS = TOP / "tools" / "vkemu" / "litmus"
KERNELS = ("vkhost", "vkguest")
TABLES = "## The switches"

# `vm_map.c:vm_map_lookup, vm_map_delete`: names after the first, and one behind a space, have an
# underscore, unlike words. `vm.h` and `vm_map.c:` are none; a sentence may end with one.
NAME = r"[A-Za-z_]\w*_\w*\b(?!:|\.[a-z])"
CITATION = re.compile(
    rf"\b([a-z]\w*\.[chs])`?:(?:\s+(?={NAME}))?([A-Za-z_]\w*)((?:,\s+(?:and\s+)?{NAME})*)"
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
        yield from cited_in(text or "")


def cited_in(text: str) -> Iterator[Cited]:
    for match in CITATION.finditer(text):
        for name in (match[2], *re.findall(r"\w*_\w*", match[3])):
            yield match[1], name


def definitions() -> dict[str, list[str]]:
    """The functions of the two kernels by name, and the modules that define them."""
    found: dict[str, list[str]] = {}
    for kernel in KERNELS:
        for path in sorted((TOP / kernel).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "_" in node.name:
                    found.setdefault(node.name, []).append(str(path.relative_to(TOP)))
    return found


def modelled() -> dict[Cited, list[str]]:
    """The functions of the table, and the modules that cite or define them."""
    cited, defined = citations(), definitions()
    return {row: sorted({*cited.get(row, ()), *defined.get(row[1], ())}) for row in known()}


def known() -> dict[Cited, str]:
    """The table: a function and the trees that have it."""
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()]
    return {(file, name): trees for file, name, trees in rows}


def shown() -> dict[str, list[str]]:
    """Switch -> what shows what it changes: litmus tests, and tests of the host, that name it."""
    tests = (
        p for part in ("oracle", "vkhost") for p in sorted((TOP / "tests" / part).rglob("*.py"))
    )
    litmus = (p for part in ("windows", "switches") for p in sorted((LITMUS / part).glob("*.toml")))
    files = [*litmus, *tests]
    words = {path: set(re.findall(r"\w+", path.read_text())) for path in files}
    return {
        name: [
            p.stem[:3] if p.parent.name == "windows" else f"`{p.name}`"
            for p in files
            if name in words[p]
        ]
        for name in AS_IN
    }


def markdown() -> str:
    """All of the page that is made."""
    heads = ["switch", *TREES, "as it should be", "shown by"]
    lines = [TABLES, "", "| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    by = shown()
    for name, as_in in AS_IN.items():
        row = [f"`{name}`", *map(_text, as_in), ", ".join(by[name])]
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", "## The functions", "", "| DragonFly | trees | here |", "| --- | --- | --- |"]
    trees = known()
    for (file, name), modules in sorted(modelled().items()):
        here = ", ".join(f"`{module}`" for module in modules)
        lines.append(f"| `{file}:{name}` | {trees[file, name]} | {here} |")
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return str(value)


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(TABLES)] + markdown())
