"""What of the kernels no check reaches, and why: by what it is, or by file and function (or class).

A line belongs to a kernel at work: what is executed as a module is imported is none of these.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_X86: Final = "machine code: only with the extra x86, in its own scenarios"

REASONS: Final[dict[str, str]] = {
    "vkhost/pc64/unicorn_cpu.py": _X86,
    "vkhost/pc64/machine_code.py": _X86,
    "vkguest/vkernel64/npx.py": _X86,
    "vkguest/kern/imgact_elf.py": _X86,
    "vkguest/kern/exec_elf.py": _X86,
    "vkhost/rmap/removed.py": "no vkernel boots on it",
}


def reason(path: str, line: int, root: Path) -> str:
    """Why nothing reaches this line; empty when there is no reason."""
    source = (root / path).read_text()
    found = kinds(source).get(line)
    if found:
        return found
    for name in enclosing(source, line):
        found = REASONS.get(f"{path}:{name}")
        if found:
            return found
    return REASONS.get(path, "")


@cache
def at_work(source: str) -> frozenset[int]:
    """The lines that are in a function: not those of an import."""
    return frozenset(
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    )


@cache
def kinds(source: str) -> dict[int, str]:
    """Lines that need no reason of their own."""
    found: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        for first, last, why in _spans(node):
            found.update(dict.fromkeys(range(first, last + 1), why))
    return found


def _spans(node: ast.AST) -> Iterator[tuple[int, int, str]]:
    defect = "a deliberate defect, or what stands in its place"
    panic = "a panic: the kernels would have to be wrong"
    told = "what people are shown"
    abstract = "what every reverse map has of its own"
    guard = "looks whether a field is touched under its lock: in tests that enforce it"
    if isinstance(node, ast.If) and "mutants" in ast.unparse(node.test):
        for branch in filter(None, (node.body, node.orelse)):
            yield branch[0].lineno, branch[-1].end_lineno or 0, defect
        yield node.lineno, node.lineno, defect
    if isinstance(node, ast.Raise | ast.Expr):
        said = ast.unparse(node)
        if said.startswith(("panic(", "raise GuestPanic", "raise Panic", "raise LockOrderError")):
            yield node.lineno, node.end_lineno or 0, panic
        if said.startswith("raise NotImplementedError"):
            yield node.lineno, node.end_lineno or 0, abstract
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [argument.arg for argument in node.args.args]
        if node.name in ("__repr__", "__str__"):
            yield node.lineno, node.end_lineno or 0, told
        if names[-1:] == ["writing"] and "held" in ast.unparse(node):
            yield node.lineno, node.end_lineno or 0, guard


def enclosing(source: str, line: int) -> list[str]:
    """Functions and classes around a line, the innermost first."""
    kinds_of = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds_of) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return [node.name for node in sorted(found, key=lambda node: -node.lineno)]
