"""Code objects rewritten so that every access to what may be shared is noted before it is made.

Operands are taken from the stack, so an access is exact whatever its source looks like, and any
function that is loaded can be treated. Left alone is what cannot be shared or cannot change: local
variables, closure variables that are assigned once, attributes that only `__init__` assigns,
globals that no function assigns.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final

from bytecode import Bytecode, Instr, Label

from vkemu.worlds import accesses, calls
from vkemu.worlds.callees import Callees, loaded_at, path_of
from vkemu.worlds.repeats import Known

VERSION: Final = sys.version_info[:2]
INITIAL: Final = frozenset(["__init__", "__post_init__", "__attrs_post_init__", "<module>"])
TESTS: Final = frozenset(
    [
        "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_FORWARD_IF_FALSE", "POP_JUMP_BACKWARD_IF_TRUE",
        "POP_JUMP_BACKWARD_IF_FALSE", "POP_JUMP_IF_TRUE", "POP_JUMP_IF_FALSE",
        "JUMP_IF_TRUE_OR_POP", "JUMP_IF_FALSE_OR_POP", "UNARY_NOT", "TO_BOOL",
    ]
)  # fmt: skip
READS: Final = frozenset(
    [
        "UNPACK_SEQUENCE", "UNPACK_EX", "LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE",
        "FORMAT_VALUE", "FORMAT_SIMPLE", "CONVERT_VALUE", "MATCH_MAPPING", "MATCH_SEQUENCE",
        "BEFORE_WITH",
    ]
)  # fmt: skip
MAKES_BOOL: Final = frozenset(["COMPARE_OP", "IS_OP", "CONTAINS_OP", "UNARY_NOT", "TO_BOOL"])
# What a library keeps for its reports, and nothing else depends on.
UNSEEN: Final = frozenset(["_Future__log_traceback", "_log_destroy_pending"])
CALLING: Final = frozenset(["PRECALL", "CALL", "CALL_KW", "CALL_FUNCTION_EX"])
STORES: Final = frozenset(["STORE_ATTR", "DELETE_ATTR"])


def unseen(attribute: str, module: str) -> bool:
    """asyncio gives an object its loop once, late or not, and there is no other."""
    return attribute in UNSEEN or (attribute == "_loop" and module.startswith("asyncio."))


Operand = Any  # a depth on the stack (1 is the top), an Instr, or ("const", value)
Code = list[Any]
NOTHING: Final[Code] = []


def call(hook: Callable[..., None], *operands: Operand) -> Code:
    """Instructions that call `hook` with copies of operands, and drop the result."""
    null, load = Instr("PUSH_NULL"), Instr("LOAD_CONST", hook)
    made: Code = [load, null] if VERSION >= (3, 13) else [null, load]
    for operand in operands:
        if isinstance(operand, int):
            made.append(Instr("COPY", operand + len(made)))
        elif isinstance(operand, Instr):
            made.append(operand.copy())
        else:
            made.append(Instr("LOAD_CONST", operand[1]))
    count = len(operands)
    if VERSION == (3, 11):
        made.append(Instr("PRECALL", count))
    return [*made, Instr("CALL", count), Instr("POP_TOP")]


def tested() -> Code:
    """Most of what is tested is a bool, of which there are two."""
    known = Label()
    jump = "POP_JUMP_FORWARD_IF_TRUE" if VERSION == (3, 11) else "POP_JUMP_IF_TRUE"
    made: Code = []
    for value in (True, False):
        made += [Instr("COPY", 1), Instr("LOAD_CONST", value), Instr("IS_OP", 0)]
        made.append(Instr(jump, known))
    return [*made, *call(accesses.tested, 1), known]


def stores_of(code: CodeType) -> tuple[tuple[str, str, str], ...]:
    """(operation, name, function) of everything a code object assigns that is not a variable."""
    known = _stores.get(id(code))
    if known is None:
        known = _stores[id(code)] = code, tuple(stores_in(code))
    return known[1]


_stores: dict[int, tuple[CodeType, tuple[tuple[str, str, str], ...]]] = {}


def stores_in(code: CodeType) -> Iterator[tuple[str, str, str]]:
    for at in dis.get_instructions(code):
        if at.opname in STORES or at.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
            yield at.opname, at.argval, code.co_name
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from stores_in(const)


class Rewriter:
    """Of one module: `written` are the globals its functions assign."""

    def __init__(
        self, names: dict[str, Any], written: set[str], followed: dict[int, FunctionType]
    ) -> None:
        self.names = names
        self.written = written
        self.callees = Callees(names, written, followed)
        self.made: list[tuple[CodeType, CodeType]] = []

    def rewrite(
        self, code: CodeType, outer: frozenset[str] = frozenset(), known: Known | None = None
    ) -> CodeType:
        """`outer`: the variables of functions around it that are assigned once."""
        bytecode = Bytecode.from_code(code)
        needless = set() if known is None else needless_in(bytecode, known)
        once = (outer & set(code.co_freevars)) | assigned_once(code, bytecode)
        out: Code = []
        for n, at in enumerate(bytecode):
            if not isinstance(at, Instr):
                out.append(at)
                continue
            if n in needless:
                out.append(at)
                continue
            if known is not None and known.entry is not None and at.name == "RESUME":
                begins = call(known.entry, *[Instr("LOAD_FAST", name) for name in known.given])
                for extra in begins:
                    extra.location = at.location
                out += [at, *begins]
                continue
            if at.name == "LOAD_CONST" and isinstance(at.arg, CodeType):
                at = Instr("LOAD_CONST", self.rewrite(at.arg, once), location=at.location)
            if at.name in CALLING:
                path = path_of(bytecode, n) if at.name in {"PRECALL", "CALL"} else ()
                before, instead, after = self.calls(at.name, at.arg, path), NOTHING, NOTHING
            else:
                before, instead, after = self.around(at, code, once, out)
            for extra in (*before, *instead, *after):
                if isinstance(extra, Instr):
                    extra.location = at.location
            if before and out and is_named(out[-1], "KW_NAMES"):
                out[-1:] = [*before, out[-1]]
            else:
                out += before
            out += instead or [at]
            out += after
        bytecode[:] = out
        new = bytecode.to_code()
        self.made.append((code, new))
        return new

    def around(
        self, at: Instr, code: CodeType, once: frozenset[str], out: Code
    ) -> tuple[Code, Code, Code]:
        """What goes before an instruction, instead of it, and after it."""
        name, arg = at.name, at.arg
        if name in {"LOAD_ATTR", "LOAD_METHOD"}:
            return self.attribute(name, arg)
        if name in STORES:
            attribute = str(arg)
            module = self.names.get("__name__", "")
            if attribute not in accesses.WRITTEN and unseen(attribute, module):
                return [], [], []
            value: Operand = 2 if name == "STORE_ATTR" else ("const", None)
            first = code.co_name in INITIAL and attribute not in accesses.WRITTEN
            hook = hook_of(accesses.first_writer if first else accesses.writer, attribute)
            return call(hook, 1, value), [], []
        if name in {"BUILD_LIST", "BUILD_MAP", "BUILD_SET"}:
            hook = accesses.born if arg else accesses.born_empty
            return [], [], call(hook, 1)
        if name in {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"}:
            return self.global_name(name, arg), [], []
        if "DEREF" in name:
            return cell(name, arg, once), [], []
        closing = "MAKE_FUNCTION" if VERSION < (3, 13) else "SET_FUNCTION_ATTRIBUTE"
        # Who makes a function names what it closes over.
        if name == closing and isinstance(arg, int) and arg & 8:
            return [], [], call(accesses.born, 1)
        if name in TESTS:
            needless = bool(out) and getattr(out[-1], "name", "") in MAKES_BOOL
            return [] if needless else tested(), [], []
        if name == "COMPARE_OP" and out and self.is_text(out[-1]):
            return [], [], []  # what is equal to a text changes no more than that does
        return operation(name, arg, code), [], []

    def is_text(self, at: Any) -> bool:
        """A constant, or a global that no function assigns."""
        if is_named(at, "LOAD_CONST"):
            return type(at.arg) is str
        if not is_named(at, "LOAD_GLOBAL"):
            return False
        name = at.arg[1] if isinstance(at.arg, tuple) else at.arg
        return name not in self.written and type(self.names.get(name)) is str

    def attribute(self, name: str, arg: Any) -> tuple[Code, Code, Code]:
        """A method is loaded like any attribute, so that a call finds what it calls on the stack,
        and never a NULL there, which cannot be copied."""
        method = name == "LOAD_METHOD" or (isinstance(arg, tuple) and arg[0])
        attribute = arg[1] if isinstance(arg, tuple) else arg
        hook = hook_of(accesses.reader, attribute)
        before = call(hook, 1) if attribute in accesses.WRITTEN else []
        if not method:
            return before, [], []
        load = Instr("LOAD_ATTR", (False, attribute) if VERSION >= (3, 12) else attribute)
        if VERSION >= (3, 13):
            return before, [load, Instr("PUSH_NULL")], []
        return before, [Instr("PUSH_NULL"), Instr("SWAP", 2), load], []

    def calls(self, name: str, arg: Any, path: tuple[str, ...]) -> Code:
        if name == "CALL_FUNCTION_EX":
            below = 1 if VERSION >= (3, 13) else 0  # what may be NULL is above the callable then
            if VERSION >= (3, 14):  # and there always is a place for named ones, NULL or not
                return call(calls.called_with, 4, 2, ("const", None))
            if arg & 1:
                return call(calls.called_with, 3 + below, 2, 1)
            return call(calls.called_with, 2 + below, 1, ("const", None))
        if name == "CALL" and VERSION == (3, 11):
            return []  # its PRECALL had it
        count = int(arg)
        shift = 0
        if VERSION >= (3, 13):  # the callable is below what may be NULL
            shift = 1
        if name == "CALL_KW":
            shift += 1
        hook = self.callees.hook(path, count)
        if hook is None:
            return []
        depths = range(count + 1, 0, -1)
        operands = [
            depth + (shift if n == 0 else (1 if name == "CALL_KW" else 0))
            for n, depth in enumerate(depths)
        ]
        if path and hook not in (calls.called, calls.CALLED.get(count)):
            del operands[0]  # it is of what is called
        return call(hook, *operands)

    def global_name(self, name: str, arg: Any) -> Code:
        which = arg[1] if isinstance(arg, tuple) else arg
        if name == "STORE_GLOBAL":
            return call(accesses.global_writer(self.names, which), 1)
        if name == "DELETE_GLOBAL":
            return call(accesses.global_writer(self.names, which))
        if which in self.written:
            return call(accesses.global_reader(self.names, which))
        return []


def needless_in(code: Code, known: Known) -> set[int]:
    """Which instructions touch nothing that has to be noted."""
    noted = known.noting()
    found = set()
    for n, at in enumerate(code):
        if not isinstance(at, Instr) or at.name in {"LOAD_METHOD", "RESUME"}:
            continue  # a method is left alone when its call is
        if at.name in CALLING:
            load = loaded_at(code, n)
            if not noted(named(code[load]) if load >= 0 else ""):
                found |= {n, load}
        elif not noted("test" if at.name in TESTS else named(at)):
            found.add(n)
    return found


def named(at: Instr) -> str:
    """What it loads, stores or makes."""
    arg: Any = at.arg
    if at.name.startswith("BUILD"):
        return at.name
    if "_ATTR" in at.name or at.name in {"LOAD_METHOD", "LOAD_GLOBAL"}:
        return str(arg[1] if isinstance(arg, tuple) else arg)
    return ""


_hooks: dict[tuple[Any, str], Callable[..., None]] = {}


def hook_of(kind: Callable[[str], Callable[..., None]], name: str) -> Callable[..., None]:
    """One for an attribute, wherever it is accessed."""
    found = _hooks.get((kind, name))
    if found is None:
        found = _hooks[kind, name] = kind(name)
    return found


def is_named(at: Any, name: str) -> bool:
    return isinstance(at, Instr) and at.name == name


def cell(name: str, arg: Any, once: frozenset[str]) -> Code:
    if arg.name == "__class__" or arg.name in once:
        return call(accesses.born, 1) if name == "STORE_DEREF" else []
    load = Instr("LOAD_CLOSURE" if VERSION < (3, 13) else "LOAD_FAST", arg)
    if name.startswith("LOAD"):
        return call(accesses.read_cell, load)
    if name == "STORE_DEREF":
        return call(accesses.write_cell, load, 1)
    return call(accesses.write_cell, load)


def operation(name: str, arg: Any, code: CodeType) -> Code:
    """Subscripts, operators, loops."""
    generating = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
    match name:
        case "BINARY_SUBSCR":
            return call(accesses.read_item, 2, 1)
        case "STORE_SUBSCR":
            return call(accesses.write_item, 2, 1, 3)
        case "DELETE_SUBSCR":
            return call(accesses.delete_item, 2, 1)
        case "BINARY_SLICE":
            return call(accesses.read_whole, 3)
        case "STORE_SLICE":
            return call(accesses.write_whole, 3)
        case "CONTAINS_OP":
            return call(accesses.contains, 1, 2)
        case "COMPARE_OP":
            return call(accesses.combines, 2, 1)
        case "BINARY_OP":
            if int(arg) == 26:  # from 3.14 on, a subscript
                return call(accesses.read_item, 2, 1)
            in_place = int(arg) >= 13
            return call(accesses.combines_in_place if in_place else accesses.combines, 2, 1)
        case "LIST_APPEND" | "SET_ADD":
            return call(accesses.born, 1)
        case "MAP_ADD":
            return call(accesses.born, 1) + call(accesses.born, 2)
        case "GET_ITER":
            return call(accesses.iterates, 1)
        case "FOR_ITER" if code.co_flags & generating:
            return call(accesses.advances, 1)
        case _ if name in READS:
            return call(accesses.tested, 1)
    return []


def assigned_once(code: CodeType, bytecode: Bytecode) -> frozenset[str]:
    """The variables of this function that others close over, and that never change once they are
    there: one assignment, in no loop, or an argument that nobody assigns."""
    own = set(code.co_cellvars)
    if not own:
        return frozenset()
    places: dict[str, list[int]] = {name: [] for name in own}
    labels = {at: n for n, at in enumerate(bytecode) if isinstance(at, Label)}
    jumps: list[tuple[int, int]] = []  # backwards
    for n, at in enumerate(bytecode):
        if isinstance(at, Instr):
            name = getattr(at.arg, "name", "")
            if at.name in {"STORE_DEREF", "DELETE_DEREF"} and name in own:
                places[name].append(n)
            elif isinstance(at.arg, Label) and labels[at.arg] < n:
                jumps.append((labels[at.arg], n))
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2]
    inner = {
        name
        for const in code.co_consts
        if isinstance(const, CodeType)
        for name in assigned_free(const)
    }
    found = set()
    for name, stores in places.items():
        if name in inner:
            continue
        if not stores or (
            len(stores) == 1
            and name not in arguments
            and not any(start <= stores[0] <= end for start, end in jumps)
        ):
            found.add(name)
    return frozenset(found)


def assigned_free(code: CodeType) -> Iterator[str]:
    """The variables of functions around it that it, or one inside of it, assigns."""
    for at in dis.get_instructions(code):
        if at.opname in {"STORE_DEREF", "DELETE_DEREF"} and at.argval in code.co_freevars:
            yield at.argval
    for const in code.co_consts:
        if isinstance(const, CodeType):
            for name in assigned_free(const):
                if name in code.co_freevars:
                    yield name
