"""Conditions over a final state: `A.r0 == 1 and X[0] != 2`.

Python's expression grammar, cut down to comparisons of integers: thread registers (`A.r0`), words
of a named guest page (`X[0]`), names, `and`, `or`, `not`, `in (1, 2)`, `&`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vkemu.verdict import UsageError

Lookup = Callable[[str], Any]
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
}


class Condition:
    """A parsed condition. `atoms` are the names it reads, in order, each once."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        chars_max = 500
        if len(text) > chars_max:
            raise UsageError(f"{where}: {len(text)} characters, expected at most {chars_max}")
        try:
            self._tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError) as error:
            error = error if isinstance(error, SyntaxError) else SyntaxError("no text")
            raise UsageError(
                f"{where}: {text!r} is not a condition ({error.msg}), expected e.g. `A.r0 == 1`"
            ) from None
        self.atoms = tuple(dict.fromkeys(self._check(self._tree, where)))

    def _check(self, node: ast.expr, where: str) -> Iterator[str]:
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    yield from self._check(value, where)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield from self._check(operand, where)
            case ast.Compare(left=left, ops=ops, comparators=right) if all(
                type(op) in _COMPARE for op in ops
            ):
                yield from self._check(left, where)
                for op, value in zip(ops, right, strict=True):
                    if isinstance(op, ast.In):
                        yield from self._check_choice(value, where)
                    else:
                        yield from self._check(value, where)
            case ast.BinOp(left=left, op=ast.BitAnd(), right=other):
                yield from self._check(left, where)
                yield from self._check(other, where)
            case (
                ast.Constant(value=int())
                | ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int()))
            ):
                return
            case ast.Name() | ast.Attribute(value=ast.Name()):
                yield ast.unparse(node)
            case ast.Subscript(value=ast.Name(), slice=ast.Constant(value=int())):
                yield ast.unparse(node)
            case _:
                raise UsageError(
                    f"{where}: {ast.unparse(node)!r} has no meaning in a condition, expected "
                    "registers (A.r0), words (X[0]), integers, comparisons, and/or/not"
                )

    def _check_choice(self, node: ast.expr, where: str) -> Iterator[str]:
        """What `in` looks in, and nothing else."""
        if not isinstance(node, ast.Tuple | ast.List):
            raise UsageError(
                f"{where}: {ast.unparse(node)!r} after `in`, expected values, e.g. `in (1, 2)`"
            )
        for value in node.elts:
            yield from self._check(value, where)

    @property
    def parts(self) -> list[Condition]:
        """What `and` joins in it, each by itself."""
        tree = self._tree
        if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
            return [Condition(ast.unparse(one), "") for one in tree.values]
        return [self]

    def holds(self, lookup: Lookup) -> bool:
        """Whether it holds where `lookup(atom)` gives the value of an atom."""
        return bool(_value(self._tree, lookup))

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"


def _value(node: ast.expr, lookup: Lookup) -> Any:
    match node:
        case ast.BoolOp(op=op, values=values):
            results = (_value(value, lookup) for value in values)
            return all(results) if isinstance(op, ast.And) else any(results)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, lookup)
        case ast.UnaryOp(operand=operand):
            return not _value(operand, lookup)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            a = _value(left, lookup)
            for compare, right in zip(ops, rights, strict=True):
                b = _value(right, lookup)
                # A register never written equals nothing, so an outcome cannot hold by accident.
                unset = a is None or b is None
                if not (isinstance(compare, ast.NotEq) if unset else _COMPARE[type(compare)](a, b)):
                    return False
                a = b
            return True
        case ast.BinOp(left=left, right=right):
            a, b = _value(left, lookup), _value(right, lookup)
            return None if a is None or b is None else a & b
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            return tuple(_value(value, lookup) for value in elts)
        case ast.Constant(value=value):
            return value
        case _:
            return lookup(ast.unparse(node))
