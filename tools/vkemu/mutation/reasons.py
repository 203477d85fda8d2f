"""What of the kernels no check reaches, and why: by file and function (or class)."""

from __future__ import annotations

import ast
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
    for name in enclosing((root / path).read_text(), line):
        found = REASONS.get(f"{path}:{name}")
        if found:
            return found
    return REASONS.get(path, "")


def enclosing(source: str, line: int) -> list[str]:
    """Functions and classes around a line, the innermost first."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return [node.name for node in sorted(found, key=lambda node: -node.lineno)]
