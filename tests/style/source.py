"""The source tree as the style tests see it: files, their syntax trees, who imports whom."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where each top-level package lives; `protocol` and `tools` are folders, not import names.
PACKAGES = {
    "vkprotocol": "protocol/vkprotocol",
    "vkhost": "vkhost",
    "vkguest": "vkguest",
    "vkemu": "tools/vkemu",
}
OURS = re.compile(r"((?:vkprotocol|vkhost|vkguest|vkemu)(?:\.\w+)+)(?::\w+)?")
KERNEL_ROOMS = {"kern", "vm", "pc64", "rmap", "vkernel64", "workloads"}


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its path below the root, its text."""

    name: str
    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")


def dotted(file: Path, base: Path) -> str:
    """`tools/vkemu/commands/__init__.py` below `tools` is `vkemu.commands`."""
    parts = file.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path = ROOT) -> Iterator[Module]:
    """Everything that goes into the wheel."""
    for folder in PACKAGES.values():
        package = root / folder
        for file in sorted(package.rglob("*.py")):
            path = file.relative_to(root).as_posix()
            yield Module(dotted(file, package.parent), path, file.read_text())


def modules_of_tests(root: Path = ROOT) -> Iterator[Module]:
    for file in sorted((root / "tests").rglob("*.py")):
        yield Module(dotted(file, root), file.relative_to(root).as_posix(), file.read_text())


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, inside functions and TYPE_CHECKING too, and of
    every string that is one of our modules, perhaps with `:name`: it is imported by that string.

    `from a import b` gives both `a` and `a.b`, since b may be a module.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = OURS.fullmatch(node.value)
            if named is not None:
                yield node.lineno, named[1]
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.name.split(".")
                up = up[: len(up) - node.level + module.is_package]
                base = ".".join([*up, *filter(None, [node.module])])
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


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
        if top in PACKAGES:
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
