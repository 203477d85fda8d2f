"""What each instruction of a function touches: variables, attributes, items, whole containers.

A small abstract interpretation of the bytecode. The value stack holds *terms*, which say where a
value came from - `("attr", ("deref", "box"), "count")` is box.count, None is unknown - and can be
evaluated in a running frame just before the instruction is. Below what is known the stack is
unknown for ever, so that an instruction not listed here only forgets what was known.
"""

from __future__ import annotations

import dis
import sys
from functools import cache
from types import CodeType
from typing import Any, Final, NamedTuple, TypeAlias

Term: TypeAlias = tuple[Any, ...] | None
Stack: TypeAlias = tuple[Term, ...]

# Other versions have other instructions; there, variables are still seen, and what is reached
# through them is seen to be written by comparing it with what it was.
EXACT: Final = sys.version_info[:2] == (3, 11)


class Access(NamedTuple):
    """`kind`: deref, global, attr, item, whole (all of a container), or call.

    `name` is the variable's or the attribute's; `key` the item's term, or a call's arguments.
    """

    kind: str
    write: bool
    name: str = ""
    term: Term = None
    key: Any = None


# Pops and pushes of what touches nothing.
PLAIN: Final = {
    "CACHE": (0, 0), "NOP": (0, 0), "EXTENDED_ARG": (0, 0), "RESUME": (0, 0), "PRECALL": (0, 0),
    "KW_NAMES": (0, 0), "MAKE_CELL": (0, 0), "COPY_FREE_VARS": (0, 0), "JUMP_FORWARD": (0, 0),
    "JUMP_BACKWARD": (0, 0), "JUMP_BACKWARD_NO_INTERRUPT": (0, 0), "RETURN_GENERATOR": (0, 1),
    "POP_TOP": (1, 0), "POP_EXCEPT": (1, 0), "PUSH_NULL": (0, 1), "PUSH_EXC_INFO": (1, 2),
    "CHECK_EXC_MATCH": (1, 1), "BEFORE_WITH": (1, 2), "BEFORE_ASYNC_WITH": (1, 2),
    "WITH_EXCEPT_START": (0, 1), "LOAD_ASSERTION_ERROR": (0, 1), "LOAD_BUILD_CLASS": (0, 1),
    "LOAD_CLOSURE": (0, 1), "LOAD_CLASSDEREF": (0, 1), "GET_AWAITABLE": (1, 1),
    "GET_YIELD_FROM_ITER": (1, 1), "GET_AITER": (1, 1), "GET_ANEXT": (0, 1),
    "YIELD_VALUE": (1, 1), "ASYNC_GEN_WRAP": (1, 1), "IMPORT_NAME": (2, 1), "IMPORT_FROM": (0, 1),
    "IS_OP": (2, 1), "LIST_TO_TUPLE": (1, 1), "LIST_APPEND": (1, 0), "SET_ADD": (1, 0),
    "MAP_ADD": (2, 0), "STORE_NAME": (1, 0), "POP_JUMP_FORWARD_IF_NONE": (1, 0),
    "POP_JUMP_FORWARD_IF_NOT_NONE": (1, 0), "POP_JUMP_BACKWARD_IF_NONE": (1, 0),
    "POP_JUMP_BACKWARD_IF_NOT_NONE": (1, 0), "END_ASYNC_FOR": (2, 0),
}  # fmt: skip
# The same, of what reads all of what it pops.
READS: Final = {
    "COMPARE_OP": (2, 1), "CONTAINS_OP": (2, 1), "UNARY_NOT": (1, 1), "UNARY_NEGATIVE": (1, 1),
    "UNARY_POSITIVE": (1, 1), "UNARY_INVERT": (1, 1), "LIST_EXTEND": (1, 0), "SET_UPDATE": (1, 0),
    "DICT_UPDATE": (1, 0), "DICT_MERGE": (1, 0), "POP_JUMP_FORWARD_IF_TRUE": (1, 0),
    "POP_JUMP_FORWARD_IF_FALSE": (1, 0), "POP_JUMP_BACKWARD_IF_TRUE": (1, 0),
    "POP_JUMP_BACKWARD_IF_FALSE": (1, 0),
}  # fmt: skip
NO_RETURN: Final = {"RETURN_VALUE", "RAISE_VARARGS", "RERAISE"}
JUMPS: Final = {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"}


@cache
def accesses_of(code: CodeType) -> dict[int, tuple[Access, ...]]:
    """By the offset of the instruction: what it is about to touch."""
    return Interpretation(code).run()


class Interpretation:
    """Of one code object."""

    def __init__(self, code: CodeType) -> None:
        self.instructions = list(dis.get_instructions(code))
        self.position = {at.offset: n for n, at in enumerate(self.instructions)}
        self.stacks: dict[int, Stack] = {}
        self.found: dict[int, tuple[Access, ...]] = {}
        self.work: list[int] = []
        self._flow(0, ())
        for entry in dis.Bytecode(code).exception_entries:  # type: ignore[attr-defined]
            self._flow(entry.target, ())

    def run(self) -> dict[int, tuple[Access, ...]]:
        while self.work:
            offset = self.work.pop()
            position = self.position[offset]
            self._take(position, self.stacks[offset])
        return self.found

    def _flow(self, offset: int, stack: Stack) -> None:
        """Control may reach `offset` with this stack."""
        known = self.stacks.get(offset)
        merged = stack if known is None else _merge(known, stack)
        if merged != known:
            self.stacks[offset] = merged
            self.work.append(offset)

    def _take(self, position: int, stack: Stack) -> None:
        at = self.instructions[position]
        taken = Taken(stack if EXACT else ())
        jumped = taken.take(at)
        if taken.accesses:
            self.found[at.offset] = tuple(taken.accesses)
        else:
            self.found.pop(at.offset, None)
        if jumped is not None:
            self._flow(at.argval, jumped)
        elif at.opcode in dis.hasjrel or at.opcode in dis.hasjabs:
            self._flow(at.argval, tuple(taken.stack))
        if at.opname not in NO_RETURN and at.opname not in JUMPS:
            after = self.instructions[position + 1 : position + 2]
            for following in after:
                self._flow(following.offset, tuple(taken.stack))


def _merge(one: Stack, other: Stack) -> Stack:
    depth = min(len(one), len(other))
    pairs = zip(one[len(one) - depth :], other[len(other) - depth :], strict=True)
    return tuple(a if a == b else None for a, b in pairs)


class Taken:
    """One instruction: the stack as it leaves it, and what it touches."""

    def __init__(self, stack: Stack) -> None:
        self.stack: list[Term] = list(stack)
        self.accesses: list[Access] = []

    def pop(self, count: int = 1) -> list[Term]:
        """The topmost terms, the lowest first."""
        stack = self.stack
        missing = max(count - len(stack), 0)
        popped = [None] * missing + stack[len(stack) - (count - missing) :]
        del stack[len(stack) - (count - missing) :]
        return popped

    def push(self, *terms: Term) -> None:
        self.stack += terms

    def use(self, *terms: Term, write: bool = False) -> None:
        for term in terms:
            if term is not None and term[0] != "const":
                self.accesses.append(Access("whole", write, term=term))

    def take(self, at: dis.Instruction) -> Stack | None:
        """Returns the stack at the jump's target, when that is another than what follows."""
        name = at.opname
        if name in PLAIN:
            pops, pushes = PLAIN[name]
            self.pop(pops)
            self.push(*[None] * pushes)
            return None
        if name in READS:
            pops, pushes = READS[name]
            self.use(*self.pop(pops))
            self.push(*[None] * pushes)
            return None
        if name.startswith(("LOAD_", "STORE_", "DELETE_")):
            self._variable(name, at)
            return None
        if name.startswith(("BUILD_", "CALL", "UNPACK_", "MAKE_", "FORMAT_")):
            self._counted(name, at.arg or 0)
            return None
        if name == "SEND":
            self.pop(2)
            over = (*self.stack, ("awaited", at.offset))
            self.push(None, None)
            return over
        return self._other(name, at.arg or 0)

    def _variable(self, name: str, at: dis.Instruction) -> None:
        verb, _, what = name.partition("_")
        write = verb != "LOAD"
        if what in {"FAST", "FAST_CHECK", "DEREF", "GLOBAL", "NAME"}:
            self._named(what, at, write, popping=verb == "STORE")
        elif what == "CONST":
            self.push(("const", at.argval))
        elif what in {"ATTR", "METHOD"}:
            self._attribute(what, str(at.argval), verb)
        elif name in {"STORE_SUBSCR", "DELETE_SUBSCR"}:
            term, key = self.pop(2)
            self.pop(verb == "STORE")
            self.accesses.append(Access("item", True, term=term, key=key))
        else:
            self.stack.clear()

    def _named(self, what: str, at: dis.Instruction, write: bool, *, popping: bool) -> None:
        kind = {"DEREF": "deref", "GLOBAL": "global", "NAME": "global"}.get(what, "local")
        name = str(at.argval)
        if kind != "local":
            self.accesses.append(Access(kind, write, name))
        if not write:
            if what == "GLOBAL" and EXACT and (at.arg or 0) & 1:
                self.push(None)
            self.push((kind, name))
            return
        self.pop(popping)
        # What was loaded from the variable before is no longer what it names.
        root = (kind, name)
        self.stack = [None if _mentions(term, root) else term for term in self.stack]

    def _attribute(self, what: str, name: str, verb: str) -> None:
        (term,) = self.pop()
        self.pop(verb == "STORE")
        if term is not None:
            self.accesses.append(Access("attr", verb != "LOAD", name, term))
        if what == "METHOD":
            self.push(None if term is None else ("method", term, name), None)
        elif verb == "LOAD":
            self.push(None if term is None else ("attr", term, name))

    def _counted(self, name: str, count: int) -> None:
        if name == "CALL":
            (*callee,) = self.pop(count + 2)
            terms, arguments = callee[:2], callee[2:]
            called = terms[0] if terms[0] is not None else terms[1]
            self.accesses.append(Access("call", False, term=called, key=tuple(arguments)))
            self.push(None)
        elif name == "CALL_FUNCTION_EX":
            self.use(*self.pop(1 + (count & 1)))
            self.pop(2)
            self.push(None)
        elif name == "UNPACK_SEQUENCE":
            self.use(*self.pop())
            self.push(*[None] * count)
        elif name == "UNPACK_EX":
            self.use(*self.pop())
            self.push(*[None] * ((count & 0xFF) + (count >> 8) + 1))
        elif name == "MAKE_FUNCTION":
            self.pop(1 + (count & 0xF).bit_count())
            self.push(None)
        elif name == "FORMAT_VALUE":
            self.use(*self.pop(1 + bool(count & 4)))
            self.push(None)
        elif name.startswith("BUILD_"):
            each = {"BUILD_MAP": 2 * count, "BUILD_CONST_KEY_MAP": count + 1}
            self.pop(each.get(name, count))
            self.push(None)
        else:
            self.stack.clear()

    def _other(self, name: str, count: int) -> Stack | None:
        inplace = 13  # the least BINARY_OP argument that is one: NB_INPLACE_ADD
        match name:
            case "BINARY_SUBSCR":
                term, key = self.pop(2)
                self.accesses.append(Access("item", False, term=term, key=key))
                known = term is not None and key is not None
                self.push(("item", term, key) if known else None)
            case "BINARY_OP":
                left, right = self.pop(2)
                self.use(right)
                self.use(left, write=count >= inplace)
                self.push(left if count >= inplace else None)
            case "GET_ITER":
                (term,) = self.pop()
                self.use(term)
                self.push(None if term is None else ("iter", term))
            case "FOR_ITER":
                (term,) = self.pop()
                self.use(term)
                over = tuple(self.stack)
                self.push(term, None)
                return over
            case "JUMP_IF_TRUE_OR_POP" | "JUMP_IF_FALSE_OR_POP":
                kept = tuple(self.stack)
                self.use(*self.pop())
                return kept
            case "GET_LEN" | "MATCH_SEQUENCE" | "MATCH_MAPPING":
                self.use(*self.stack[-1:])
                self.push(None)
            case "MATCH_KEYS":
                self.use(*self.stack[-2:-1])
                self.push(None)
            case "MATCH_CLASS":
                subject, _, names = self.pop(3)
                if subject is not None and names is not None and names[0] == "const":
                    self.accesses += [Access("attr", False, str(n), subject) for n in names[1]]
                self.push(None)
            case "COPY":
                self.push(self.stack[-count] if count <= len(self.stack) else None)
            case "SWAP":
                self.stack[:0] = [None] * max(count - len(self.stack), 0)
                self.stack[-1], self.stack[-count] = self.stack[-count], self.stack[-1]
            case _:
                self.stack.clear()
        return None


def _mentions(term: Term, root: tuple[str, str]) -> bool:
    if term is None:
        return False
    return term == root or any(isinstance(part, tuple) and _mentions(part, root) for part in term)


def text_of(term: Term) -> str:
    """As it would be written."""
    match term:
        case ("local" | "deref" | "global", str(name)):
            return name
        case ("const", value):
            return repr(value)
        case ("attr" | "method", inner, str(name)):
            return f"{text_of(inner)}.{name}"
        case ("item", inner, key):
            return f"{text_of(inner)}[{text_of(key)}]"
        case ("iter", inner):
            return text_of(inner)
        case ("awaited", _):
            return "what was awaited"
        case _:
            return "..."
