"""The written style, as a test: sizes, names, nothing left behind, nothing unreachable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import pytest

from tests.style.source import (
    Module,
    entry_points,
    imports,
    modules,
    modules_of_tests,
    named_in_strings,
)

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
# The exceptions, each with the reason.
LONGER = {
    "vkemu.executors.controlled": 440
}  # a step is spelt out three times: a call costs as much as one
COLUMNS_MAX = 100
LEFT_BEHIND = re.compile(r"\b(?:FIX" r"ME|TO" r"DO|XX" r"X|HA" r"CK)\b")
LATER = "# {}DO later".format("TO")
# Names that say nothing about what a thing is.
EMPTY_WORDS = re.compile(r"(?:^|_)(?:manager|helper|util)s?(?:_|$)")


def words(name: str) -> str:
    """`PageManager` and `page_manager` alike."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def untidy(module: Module) -> Iterator[str]:
    lines = module.text.splitlines()
    if len(lines) > LONGER.get(module.name, MODULE_LINES_MAX):
        yield f"{module.path}: {len(lines)} lines"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield f"{module.path}:{number}: {len(line)} columns"
        if LEFT_BEHIND.search(line):
            yield f"{module.path}:{number}: left behind: {line.strip()}"
    for part in module.name.split("."):
        if EMPTY_WORDS.search(part):
            yield f"{module.path}: named {part}"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        # DragonFly's own names are kept, this one among them.
        if EMPTY_WORDS.search(words(node.name)) and node.name != "vm_pageout_clean_helper":
            yield f"{module.path}:{node.lineno}: named {node.name}"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if not isinstance(node, ast.ClassDef) and length > FUNCTION_LINES_MAX:
            yield f"{module.path}:{node.lineno}: {node.name} has {length} lines"


def unreached(tree: Iterable[Module], entries: set[str]) -> set[str]:
    """Modules that no module reachable from an entry point imports, nor names for a lazy import."""
    by_name = {module.name: module for module in tree}
    todo = [name for name in by_name if name in entries or "." not in name]
    seen = set(todo)
    while todo:
        module = by_name[todo.pop()]
        named = {name for _, name in imports(module)} | set(named_in_strings(module))
        for name in named:
            # Importing a.b.c runs a and a.b too.
            parts = name.split(".")
            for stem in (".".join(parts[: n + 1]) for n in range(len(parts))):
                if stem in by_name and stem not in seen:
                    seen.add(stem)
                    todo.append(stem)
    return set(by_name) - seen


def test_the_tree_is_tidy() -> None:
    found = [line for module in (*modules(), *modules_of_tests()) for line in untidy(module)]

    assert found == []


def test_every_module_is_reached_from_an_entry_point() -> None:
    assert unreached(modules(), entry_points()) == set()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vkhost.x", "x = 1\n" * 401),
        ("vkhost.x", f"x = '{'y' * 100}'"),
        ("vkhost.x", "def f() -> None:\n" + "    pass\n" * 70),
        ("vkhost.x", LATER),
        ("vkhost.page_util", ""),
        ("vkhost.x", "class PageManager: ..."),
        ("vkhost.x", "def helper(): ..."),
    ],
)
def test_untidiness_is_seen(name: str, text: str) -> None:
    assert list(untidy(Module(name, f"{name}.py", text))) != []


def test_an_unreached_module_is_seen() -> None:
    tree = [
        Module("vkemu", "vkemu/__init__.py", ""),
        Module("vkemu.commands.cli", "vkemu/commands/cli.py", "COMMANDS = ['vkemu.commands.run']"),
        Module("vkemu.commands", "vkemu/commands/__init__.py", ""),
        Module("vkemu.commands.run", "vkemu/commands/run.py", "from . import step"),
        Module("vkemu.commands.step", "vkemu/commands/step.py", ""),
        Module("vkemu.lost", "vkemu/lost.py", "import vkemu.also_lost"),
        Module("vkemu.also_lost", "vkemu/also_lost.py", ""),
    ]

    assert unreached(tree, {"vkemu.commands.cli"}) == {"vkemu.lost", "vkemu.also_lost"}
