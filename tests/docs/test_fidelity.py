"""docs/fidelity.md says of every function that a docstring cites in which tree it is."""

from __future__ import annotations

from pathlib import Path

from tests.docs.fidelity_page import CITATION, PAGE, TABLE, citations, known, markdown
from vkhost.tree import TREES


def test_the_page_holds_the_tables() -> None:
    assert PAGE.read_text().endswith(markdown())


def test_every_function_cited_in_a_docstring_is_in_the_table() -> None:
    assert citations().keys() - known().keys() == set()


def test_the_table_has_none_that_nobody_cites() -> None:
    assert known().keys() - citations().keys() == set()
    assert all(set(trees.split()) <= {*TREES, "Linux"} for trees in known().values())
    assert len(known()) > 150
    assert TABLE.read_text() == "".join(sorted(TABLE.read_text().splitlines(keepends=True)))


def test_a_citation_may_go_on_over_names_and_stops_at_words() -> None:
    text = "DragonFly pmap.c:pmap_enter, pmap_remove_all, and vm_page.c:vm_page_cache; vm.h, x_y."
    found = [(m[1], m[2], m[3]) for m in CITATION.finditer(text)]

    assert found == [
        ("pmap.c", "pmap_enter", ", pmap_remove_all"),
        ("vm_page.c", "vm_page_cache", ""),
    ]


def test_the_page_names_files_that_are_there() -> None:
    top = Path(__file__).parents[2]

    assert all((top / module).is_file() for modules in citations().values() for module in modules)
