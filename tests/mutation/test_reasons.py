"""What no check reaches is on record, line by line, and each line has a reason.

Renewed by `vkemu coverage --json > tests/mutation/unreached.json`, some ten minutes of two cores.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import msgspec
from vkemu.commands.coverage import Line, why
from vkemu.mutation.planted import ROOT, sources
from vkemu.mutation.reasons import REASONS, at_work, kinds

RECORDED = Path(__file__).parent / "unreached.json"


@cache
def recorded() -> list[Line]:
    return msgspec.json.decode(RECORDED.read_bytes(), type=list[Line])


def names(path: str) -> set[str]:
    """Functions and classes of a file."""
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    kinds_of = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in nodes if isinstance(node, kinds_of)}


def test_no_line_is_unreached_without_a_reason() -> None:
    assert [line for line in recorded() if not line.reason] == []
    assert len(recorded()) > 500


def test_what_is_recorded_is_there() -> None:
    """As text: where a file has moved it, it is the same line. What is gone was mended or deleted;
    record it anew when that is much."""
    there = {
        str(p.relative_to(ROOT)): set(map(str.strip, p.read_text().splitlines())) for p in sources()
    }
    gone = [x for x in recorded() if x.text not in there.get(x.path, ())]

    assert len(gone) < len(recorded()) // 10, gone


def test_a_reason_is_of_something_that_is_there() -> None:
    paths = {name.partition(":")[0] for name in REASONS}
    there = {path: names(path) for path in paths if (ROOT / path).is_file()}

    assert paths == there.keys()
    pairs = [name.partition(":")[::2] for name in REASONS]
    assert [pair for pair in pairs if pair[1] and pair[1] not in there[pair[0]]] == []


def test_what_is_reached_as_a_module_is_imported_is_none_of_it() -> None:
    source = "import a\nX = 1\ndef f():\n    y = 2\n    return y\nclass C:\n    z = 3\n"

    assert at_work(source) == {4, 5}


def test_some_lines_need_no_reason_of_their_own() -> None:
    source = (
        "def f(gd):\n"
        "    if 'x' in gd.mutants:\n"
        "        a()\n"
        "    if b:\n"
        "        return -Errno.EINVAL\n"
        "    raise VmWait\n"
        "    c()\n"
    )

    assert sorted(kinds(source)) == [2, 3, 5, 6]


def test_where_nothing_gets_without_a_reason_there_is_none() -> None:
    assert why("vkhost/vm/vm_page_dirty.py", 30, 0) == ""
