"""The source tree as the style tests see it: files, their syntax trees, who imports whom."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where each top-level package lives; `protocol` and `tools` are folders, not import names.
PACKAGES = {
    "vkprotocol": "protocol/vkprotocol",
    "vkhost": "vkhost",
    "vkguest": "vkguest",
    "vkemu": "tools/vkemu",
}
OURS = re.compile(r"((?:vkprotocol|vkhost|vkguest|vkemu)(?:\.\w+)+)(?::[\w.]+)?")
KERNEL_ROOMS = {"kern", "vm", "pc64", "rmap", "vkernel64", "workloads"}


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its path below the root, its text."""

    name: str
    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")


def dotted(file: Path, base: Path) -> str:
    """`tools/vkemu/commands/__init__.py` below `tools` is `vkemu.commands`."""
    parts = file.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> tuple[Module, ...]:
    """Everything that goes into the wheel."""
    return tuple(
        Module(dotted(file, package.parent), file.relative_to(ROOT).as_posix(), file.read_text())
        for package in (ROOT / folder for folder in PACKAGES.values())
        for file in sorted(package.rglob("*.py"))
    )


@cache
def modules_of_tests() -> tuple[Module, ...]:
    return tuple(
        Module(dotted(file, ROOT), file.relative_to(ROOT).as_posix(), file.read_text())
        for file in sorted((ROOT / "tests").rglob("*.py"))
    )


@cache
def imports(module: Module) -> tuple[tuple[int, str], ...]:
    return tuple(_imports(module))


def _imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, inside functions and TYPE_CHECKING too, and of
    every string that is one of our modules, perhaps with `:name`: it is imported by that string.
    What `import_module` is given is a module of any name, relative or not.

    `from a import b` gives both `a` and `a.b`, since b may be a module.
    """
    yield from ((line, name) for line, name in by_call(module) if name)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = OURS.fullmatch(node.value)
            if named is not None:
                yield node.lineno, named[1]
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node.level, node.module or "")
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def absolute(module: Module, level: int, name: str) -> str:
    up = module.name.split(".")
    up = up[: len(up) - level + module.is_package] if level else []
    return ".".join([*up, *filter(None, [name])])


@cache
def by_call(module: Module) -> tuple[tuple[int, str], ...]:
    """(line, name) of what `import_module` and its like are given; "" for what is computed."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in {"import_module", "__import__", "run_module"}:
                given = node.args[0]
                text = str(given.value) if isinstance(given, ast.Constant) else ""
                name = text.lstrip(".")
                found.append((node.lineno, name and absolute(module, len(text) - len(name), name)))
    return tuple(found)


def late(module: Module, tree: Collection[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of what is imported inside functions."""
    inside = {line for node in ast.walk(module.tree) if is_function(node) for line in lines(node)}
    return ((line, name) for line, name in targets(module, tree) if line in inside)


def at_run_time(module: Module, tree: Collection[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of what is imported for more than the type checker."""
    typing = {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for line in lines(statement)
    }
    return ((line, name) for line, name in targets(module, tree) if line not in typing)


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def lines(node: ast.AST) -> range:
    assert isinstance(node, ast.stmt | ast.expr)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def uses(module: Module) -> Iterator[tuple[int, str]]:
    """(line, `os.urandom`) of what is taken from a module that was imported, by whatever name; and
    (line, `id()`) of what is called by its bare name and without an argument."""
    known = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in known:
                yield node.lineno, f"{known[node.value.id]}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, f"{node.func.id}({'...' if node.args or node.keywords else ''})"


def named_in_strings(module: Module) -> Iterator[str]:
    """String constants that look like one of our modules: what is imported lazily by name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\b(?:vkprotocol|vkhost|vkguest|vkemu)(?:\.\w+)+", node.value)


def entry_points(root: Path = ROOT) -> set[str]:
    """Modules something outside Python starts: scripts, pytest plugins, `python -m` in make."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    targets = list(project.get("scripts", {}).values())
    for group in project.get("entry-points", {}).values():
        targets += group.values()
    names = {target.partition(":")[0] for target in targets}
    names |= {f"{package}.__main__" for package in PACKAGES}
    return names | set(re.findall(r"-m (vk[\w.]+)", (root / "Makefile").read_text()))


def room(name: str) -> str:
    """The folder a module lies in; that of a kernel with its kernel's name before it."""
    package, _, inside = name.partition(".")
    folder, dot, _ = inside.partition(".")
    if package == "vkemu":
        return folder or package
    return f"{package}.{folder}" if dot or folder in KERNEL_ROOMS else package


def targets(module: Module, tree: Collection[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of what each import means: `from a import b` is a.b when that is a module."""
    found = set(imports(module))
    for line, name in sorted(found):
        if not any(at == line and other.startswith(f"{name}.") for at, other in found):
            yield line, name if name in tree else name.rpartition(".")[0] or name


def arrows(module: Module, tree: Collection[str]) -> Iterator[tuple[int, str, str]]:
    """(line, room, module) of every import of another room. Of another package, its name is all
    that counts: which room of a kernel `vkemu` looks into is no arrow."""
    package, here = module.name.partition(".")[0], room(module.name)
    for line, target in targets(module, tree):
        top = target.partition(".")[0]
        if top in {*PACKAGES, "tests"}:
            there = room(target) if top == package else top
            if there != here:
                yield line, there, target


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Who reaches itself, together with those on the way (strongly connected, more than one)."""
    reach = {node: set(graph[node]) for node in graph}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    found = {
        tuple(sorted(other for other in graph if other in reach[node] and node in reach[other]))
        for node in graph
        if node in reach[node]
    }
    return [list(circle) for circle in sorted(found) if len(circle) > 1]
