"""docs/fidelity.md says of every function that a docstring cites in which tree it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.fidelity_page import (
    PAGE,
    TABLE,
    citations,
    cited_in,
    known,
    markdown,
    modelled,
    shown,
)
from vkhost.tree import TREES


def test_the_page_holds_the_tables() -> None:
    assert PAGE.read_text().endswith(markdown())


def test_every_function_cited_in_a_docstring_is_in_the_table() -> None:
    assert citations().keys() - known().keys() == set()


def test_the_table_has_none_that_nobody_cites_or_defines() -> None:
    assert [row for row, modules in modelled().items() if not modules] == []
    assert all(set(trees.split()) <= {*TREES, "Linux"} for trees in known().values())
    assert len(known()) > 300
    assert TABLE.read_text() == "".join(sorted(TABLE.read_text().splitlines(keepends=True)))


def test_every_switch_is_shown_by_a_test() -> None:
    assert [name for name, tests in shown().items() if not tests] == []


@pytest.mark.parametrize(
    ("text", "functions"),
    [
        ("pmap.c:pmap_enter, pmap_remove_all, and vm_page.c:vm_page_cache; vm.h, x_y.",
         ["pmap.c:pmap_enter", "pmap.c:pmap_remove_all", "vm_page.c:vm_page_cache"]),
        ("See vm_map.c:vm_map_lookup, vm_map_delete. And", ["vm_map.c:vm_map_lookup",
                                                            "vm_map.c:vm_map_delete"]),
        ("vm_fault.c:vm_fault, and vm_fault_page, vm_map.c", ["vm_fault.c:vm_fault",
                                                              "vm_fault.c:vm_fault_page"]),
        ("`kern_exit.c`: the process ends; pmap.c: m->md, and npx.h: vm_x", ["npx.h:vm_x"]),
        ("support.s:std_copyin.", ["support.s:std_copyin"]),
    ],
)  # fmt: skip
def test_a_citation_goes_on_over_names_and_stops_at_words(text: str, functions: list[str]) -> None:
    assert [f"{file}:{name}" for file, name in cited_in(text)] == functions


def test_the_page_names_files_that_are_there() -> None:
    top = Path(__file__).parents[2]

    assert all((top / module).is_file() for modules in citations().values() for module in modules)
