"""Which function a call calls, as far as the code around it says: a global that nobody assigns."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from bytecode import Instr

from vkemu.worlds import accesses, calls
from vkemu.worlds.known import BLIND, RUNTIME
from vkemu.worlds.noting import HERE

Hook = Callable[..., None]
# How much of the stack is taken and left by what computes arguments.
EFFECTS: Final = {
    "KW_NAMES": (0, 0), "PRECALL": (0, 0), "LOAD_FAST": (0, 1), "LOAD_CONST": (0, 1),
    "LOAD_DEREF": (0, 1), "LOAD_CLOSURE": (0, 1), "PUSH_NULL": (0, 1), "BINARY_SUBSCR": (2, 1),
    "COMPARE_OP": (2, 1), "IS_OP": (2, 1), "CONTAINS_OP": (2, 1), "BINARY_OP": (2, 1),
    "UNARY_NOT": (1, 1), "UNARY_NEGATIVE": (1, 1),
}  # fmt: skip


def effect(at: Instr) -> tuple[int, int] | None:
    """None: of no use here."""
    arg: Any = at.arg
    match at.name:
        case "LOAD_GLOBAL":
            return 0, 1 + bool(isinstance(arg, tuple) and arg[0])
        case "LOAD_ATTR":
            return 1, 1 + bool(isinstance(arg, tuple) and arg[0])
        case "LOAD_METHOD":
            return 1, 2
        case "CALL":
            return int(arg) + 2, 1
        case "BUILD_TUPLE" | "BUILD_LIST" | "BUILD_STRING":
            return int(arg), 1
    return EFFECTS.get(at.name)


def path_of(code: list[Any], n: int) -> tuple[str, ...]:
    """The name that the call at `n` calls: of a global, or of something in a global."""
    at = loaded_at(code, n)
    return name_at(code, at) if at >= 0 else ()


def loaded_at(code: list[Any], n: int) -> int:
    """Where what the call at `n` calls is put on the stack; -1: it is not known."""
    deep = int(code[n].arg) + 1  # how deep in the stack it is
    for at in range(n - 1, -1, -1):
        if not isinstance(code[at], Instr):
            return -1
        found = effect(code[at])
        if found is None:
            return -1
        takes, leaves = found
        if leaves >= deep:
            return at
        deep += takes - leaves
    return -1


def name_at(code: list[Any], n: int) -> tuple[str, ...]:
    at = code[n]
    name = at.arg[1] if isinstance(at.arg, tuple) else at.arg
    if at.name == "LOAD_GLOBAL":
        return (name,)
    if at.name in {"LOAD_METHOD", "LOAD_ATTR"} and n:
        owner = code[n - 1]
        if isinstance(owner, Instr) and owner.name == "LOAD_GLOBAL":
            return (*name_at(code, n - 1), name)
    return ()


class Callees:
    """Of one module. `followed`: by id, all functions that are rewritten; `written`: the globals
    that its functions assign. What code is made of it holds while `assumed` does."""

    def __init__(
        self, names: dict[str, Any], written: set[str], followed: dict[int, FunctionType]
    ) -> None:
        self.names = names
        self.written = written
        self.followed = followed
        stem = str(names.get("__name__", "")).partition(".")[0]
        self.library = stem in RUNTIME or stem in sys.stdlib_module_names
        self.assumed: dict[tuple[tuple[str, ...], int], Hook | None] = {}

    def hook(self, path: tuple[str, ...], count: int) -> Hook | None:
        """What to call before this is called with so many arguments."""
        found = self.hook_of(path, count)
        self.assumed[path, count] = found
        return found

    def hold(self, assumed: dict[tuple[tuple[str, ...], int], Hook | None]) -> bool:
        return all(self.hook_of(*asked) is hook for asked, hook in assumed.items())

    def hook_of(self, path: tuple[str, ...], count: int) -> Hook | None:
        unknown = calls.CALLED.get(count, calls.called)
        if not path or path[0] in self.written or not accesses.WRITTEN.isdisjoint(path):
            return unknown
        if path[0] in self.names:
            found = self.names[path[0]]
            if not self.library:  # a test may put another there
                plain = type(found) is FunctionType and len(path) == 1 and not count
                return None if plain and id(found) in self.followed else unknown
        else:
            found = vars(builtins).get(path[0])
        if len(path) > 1:
            if type(found) is not ModuleType:
                return unknown
            found = vars(found).get(path[1])
        if type(found) is FunctionType:
            return None if id(found) in self.followed else unknown
        if type(found) is BuiltinFunctionType and type(found.__self__) is ModuleType:
            if found in calls.SPECIAL:
                return guarded(calls.SPECIAL[found])
            return None if found in BLIND or not count else unknown
        if isinstance(found, type):
            return None if self.harmless(found, count) else unknown
        return unknown

    def harmless(self, kind: type, count: int) -> bool:
        """Whether to call a class is nothing to note: what it does, it notes itself."""
        if kind is super or kind is type:
            return True
        init = vars(kind).get("__init__")
        if type(init) is FunctionType:
            return id(init) in self.followed
        return not count


def guarded(hook: Hook) -> Hook:
    if hook is accesses.tested:
        return hook
    found = _guarded.get(hook)
    if found is None:

        def found(*args: Any) -> None:
            if HERE.on:
                hook(*args)

        _guarded[hook] = found
    return found


_guarded: dict[Hook, Hook] = {}
