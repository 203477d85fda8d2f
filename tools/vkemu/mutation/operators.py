"""Kernel mistakes by machine: what somebody forgets, swaps or writes one too few of.

Over the syntax tree of a kernel's module, but as edits of its text, so that a mutant is a diff of a
line or two. Neither cosmic-ray nor mutmut carries these: both have the operators of expressions
(another comparison, another number) and none of statements - a call left out, two in the wrong
order, the retry not taken, the first of a list only - which is what kernel mistakes are; and both
run a test command in a process for each mutant, where one exploration takes milliseconds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple

FAMILIES: Final = (
    "VPTE_", "PTE_", "PG_", "PROT_", "VM_PROT_", "PQ_", "MADV_", "KERN_", "MAP_", "INHERIT_",
)  # fmt: skip
SAYS: Final = ("emit", "kkassert", "panic", "count")
ORDERS: Final = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
}  # fmt: skip


class Edit(NamedTuple):
    """Lines [first, last] of a module become `text`. `what`: the operator."""

    what: str
    first: int
    last: int
    text: str


@cache
def edits(source: str) -> list[Edit]:
    """Every mistake there is, in the order of the text. Whether one `changes` anything is another
    question."""
    tree = ast.parse(source)
    lines = source.splitlines()
    found = {edit for node in _nodes(tree) for edit in _of(node, lines, tree)}
    return sorted(found, key=lambda edit: (edit.first, edit))


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All but types, what only builds or describes an object, and what no kernel does: say what it
    does, check itself, and what a deliberate defect does in its place."""
    if isinstance(node, ast.Call) and _name(node.func) in SAYS:
        return
    yield node
    describes = ("__init__", "__repr__", "__str__", "__post_init__")
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or _of_a_defect(node, name):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or getattr(child, "name", "") in describes:
                continue
            if not (isinstance(child, ast.FunctionDef) and child.args.args[-1:] and _guards(child)):
                yield from _nodes(child)


def _of_a_defect(node: ast.AST, name: str) -> bool:
    """Is this branch taken with a deliberate defect only?"""
    match node:
        case (
            ast.If(test=ast.Compare(ops=[op], comparators=[mutants]))
            | ast.IfExp(test=ast.Compare(ops=[op], comparators=[mutants]))
        ) if _name(mutants) == "mutants":
            return name == ("body" if isinstance(op, ast.In) else "orelse")
    return False


def _guards(function: ast.FunctionDef) -> bool:
    """What `guarded_by` asks, and only tests enforce."""
    return function.args.args[-1].arg == "writing"


def applied(source: str, edit: Edit) -> str:
    lines = source.splitlines(keepends=True)
    return "".join([*lines[: edit.first - 1], edit.text, *lines[edit.last :]])


def changes(source: str, edit: Edit) -> bool:
    """Is it a program, and another one?"""
    try:
        return ast.dump(ast.parse(applied(source, edit))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _of(node: ast.AST, lines: list[str], tree: ast.Module) -> Iterator[Edit]:
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(node, (ast.Module, ast.ClassDef)) or _of_a_defect(node, name):
            continue
        if isinstance(body, list):
            yield from _statements(body, lines)
    match node:
        case ast.If() | ast.While() | ast.IfExp() if _judges(node.test):
            yield _replaced(
                "condition inverted", node.test, f"not ({_text(node.test, lines)})", lines
            )
            if isinstance(node, ast.While) and not _jumps(node):
                first = lines[node.lineno - 1].replace("while ", "if ", 1)
                yield Edit("retry not taken", node.lineno, node.lineno, first + "\n")
        case ast.BoolOp() if _judges(node):
            for value in node.values:
                others = [_operand(v, lines) for v in node.values if v is not value]
                word = " and " if isinstance(node.op, ast.And) else " or "
                yield _replaced("condition dropped", node, f"({word.join(others)})", lines)
        case ast.BinOp(op=ast.BitOr()) if not _types(node):
            for side in (node.left, node.right):
                yield _replaced("flag forgotten", node, _text(side, lines), lines)
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            yield _replaced("one too few", node, _text(node.left, lines), lines)
        case ast.Compare(ops=[op]) if type(op) in ORDERS:
            left, right = _operand(node.left, lines), _operand(node.comparators[0], lines)
            yield _replaced("bound off by one", node, f"{left} {ORDERS[type(op)]} {right}", lines)
        case ast.For() | ast.AsyncFor() if not _jumps(node):
            last = node.body[-1]
            indent = " " * node.body[0].col_offset
            text = "".join(f"{line}\n" for line in lines[last.lineno - 1 : last.end_lineno])
            yield Edit("first only", last.lineno, last.end_lineno or 0, f"{text}{indent}break\n")
        case ast.Return(value=ast.Constant(value=bool(value))):
            yield _replaced("answer inverted", node, f"return {not value}", lines)
        case ast.Continue():
            yield _replaced("retry not taken", node, "break", lines)
        case ast.Name(id=name, ctx=ast.Load()) if name.startswith(FAMILIES):
            for other in _family(name, tree):
                yield _replaced("wrong constant", node, other, lines)


def _statements(body: list[ast.stmt], lines: list[str]) -> Iterator[Edit]:
    for statement in body:
        if _acts(statement):
            indent = " " * statement.col_offset
            yield Edit("left out", statement.lineno, statement.end_lineno or 0, f"{indent}pass\n")
    for a, b in pairwise(body):
        if _acts(a) and _acts(b) and _awaits(a) and _awaits(b):
            text = "".join(
                f"{line}\n" for s in (b, a) for line in lines[s.lineno - 1 : s.end_lineno]
            )
            yield Edit("swapped", a.lineno, b.end_lineno or 0, text)


def _acts(statement: ast.stmt) -> bool:
    """A statement made for what it does: a call, or a change of a field."""
    match statement:
        case ast.Expr(value=ast.Await(value=ast.Call(func=func)) | ast.Call(func=func)):
            return _name(func) not in SAYS
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            return True
        case ast.Delete():
            return True
    return False


def _awaits(statement: ast.stmt) -> bool:
    """To anybody else there is an order only of steps."""
    return any(isinstance(n, ast.Await) for n in ast.walk(statement))


def _name(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def _judges(node: ast.expr) -> bool:
    """A condition of the kernel's own: not whether a deliberate defect, a setting or a type is."""
    names = {
        n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in ast.walk(node)
    }
    return not names & {"mutants", "tunables", "TYPE_CHECKING"}


def _types(node: ast.BinOp) -> bool:
    """`int | None` of an alias."""
    names = {getattr(n, "id", getattr(n, "value", "")) for n in ast.walk(node)}
    return bool(names & {None, "int", "str", "tuple"})


def _jumps(node: ast.stmt) -> bool:
    return any(isinstance(n, (ast.Break, ast.Continue)) for n in ast.walk(node))


def _family(name: str, tree: ast.Module) -> list[str]:
    """Constants of the same family that the module knows."""
    prefix = next(p for p in FAMILIES if name.startswith(p))
    known = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    return sorted(other for other in known if other.startswith(prefix) and other != name)[:2]


def _text(node: ast.expr, lines: list[str]) -> str:
    if node.lineno != node.end_lineno:
        return ast.unparse(node)
    return lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode()


def _operand(node: ast.expr, lines: list[str]) -> str:
    """The columns of an expression are those inside its parentheses."""
    text = _text(node, lines)
    return f"({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr)) else text


def _replaced(what: str, node: ast.expr | ast.stmt, text: str, lines: list[str]) -> Edit:
    """`node` gives way to `text`, in its lines. Columns count bytes."""
    first, last = node.lineno, node.end_lineno or node.lineno
    head = lines[first - 1].encode()[: node.col_offset].decode()
    tail = lines[last - 1].encode()[node.end_col_offset :].decode()
    return Edit(what, first, last, f"{head}{text}{tail}\n")
