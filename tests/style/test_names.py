"""What one function alone uses is in it, and what nobody uses is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pytest

from tests.style.source import ROOT, Module, imports, modules, modules_of_tests

# Read as a list with its neighbours, or DragonFly's own #define.
STAY = {
    f"{module}.{name}"
    for module, names in {
        "vkhost.pc64.nested_walk": "FILLED",
        "vkhost.pc64.pmap": "PM_PLACE_MASK",
        "vkhost.vm.vm_fault_collapse": "VM_MAP_BACKING_LIMIT",
        "vkhost.vm.vm_pageout_cache": "PQ_PRIME2",
        "vkguest.kern.exec_elf": "AT_NULL AT_PHDR AT_PHENT AT_PHNUM AT_PAGESZ AT_ENTRY",
        "vkguest.kern.imgact_elf": "PF_X PF_W PF_R",
        "vkguest.kern.kern_descrip": "SEEK_SET SEEK_CUR SEEK_END",
        "vkguest.kern.kern_sig": "SIG_BLOCK SIG_UNBLOCK SIG_SETMASK",
        "vkguest.kern.pipe": "PIPE_BUF",
        "vkguest.kernel": "DOWN FAILED",
        "vkguest.vm.vm_page": "ACT_INIT",
        "vkhost.pc64.machine_code": "RCX R11",
        "vkemu.litmus.verbs_guest": "RAX RDI",
        "vkemu.exploration.reduction.several": "OPEN",
        "vkguest.vkernel64.npx": "INITIAL_NPXCW INITIAL_MXCSR",
        "vkguest.vkernel64.syscall_x86": "WNOHANG",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True)
class Constant:
    """A name that a module binds once; `users`: the functions (methods) in which it is read, None
    for the module or a class itself."""

    module: Module
    name: str
    statement: ast.Assign | ast.AnnAssign
    users: frozenset[ast.AST | None]

    def __str__(self) -> str:
        return f"{self.module.name}.{self.name}"


def constants(module: Module) -> Iterator[Constant]:
    bound: dict[str, ast.Assign | ast.AnnAssign] = {}
    kept = (node.names for node in ast.walk(module.tree) if isinstance(node, ast.Global))
    changed = {name for names in kept for name in names}
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (node for target in targets for node in ast.walk(target)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    changed |= {node.id} & set(bound)
                    bound[node.id] = statement
    read: dict[str, set[ast.AST | None]] = {}
    for name, user in reads(module):
        read.setdefault(name, set()).add(user)
    for name, statement in bound.items():
        if name not in changed and not name.startswith("__"):
            yield Constant(module, name, statement, frozenset(read.get(name, ())))


@cache
def reads(module: Module) -> tuple[tuple[str, ast.AST | None], ...]:
    """(name, the outermost function it is read in). A default or a decorator is outside."""
    found: list[tuple[str, ast.AST | None]] = []
    todo: list[tuple[ast.AST, ast.AST | None]] = [(module.tree, None)]
    while todo:
        node, user = todo.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.append((node.id, user))
        body: list[ast.stmt] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and user is None:
            body = node.body
            todo += [(child, node) for child in body]
        todo += [(child, user) for child in ast.iter_child_nodes(node) if child not in body]
    return tuple(found)


@cache
def known_by(module: Module) -> frozenset[str]:
    """`module.NAME` of what it imports from others, or takes from a module; and every text that
    could be a name."""
    taken = {name for _, name in imports(module)}
    homes = {name.rpartition(".")[2]: name for name in taken}
    found = set(taken)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            homes |= {a.asname: f"{node.module}.{a.name}" for a in node.names if a.asname}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{homes.get(node.value.id, '')}.{node.attr}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return frozenset(found)


def unnamed(tree: Sequence[Module], tests: Sequence[Module]) -> Iterator[str]:
    """Functions and classes that no module and no test has the name of."""
    elsewhere = frozenset().union(*map(known_by, [*tree, *tests]))
    for module in tree:
        here = {name for name, _ in reads(module)}
        for statement in module.tree.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = statement.name
                ways = {name, f".{name}", f"{module.name}.{name}"}
                if not statement.decorator_list and name not in here and not ways & elsewhere:
                    yield f"{module.name}.{name}"


def told() -> set[str]:
    """What a test changes or a page explains."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    words = set(re.findall(r"\b_?[A-Z]\w+", " ".join(page.read_text() for page in pages)))
    others = [module for module in modules_of_tests() if module.name != __name__]
    return words.union(*map(known_by, others))


def is_plain(value: ast.AST | None) -> bool:
    """A constant of the compiler's: it costs nothing to have it in a function."""
    if isinstance(value, ast.Tuple):
        return all(map(is_plain, value.elts))
    if isinstance(value, ast.BinOp):
        return is_plain(value.left) and is_plain(value.right)
    if isinstance(value, ast.UnaryOp):
        return is_plain(value.operand)
    return isinstance(value, ast.Constant)


def lonely(tree: Sequence[Module], words: set[str]) -> Iterator[tuple[str, ast.AST | None]]:
    """(name, its function) of plain constants of a line that one function alone uses; (name, None)
    of what nobody uses. Names that are bound together are judged together."""
    elsewhere = frozenset().union(*map(known_by, tree))
    for module in tree:
        together: dict[ast.Assign | ast.AnnAssign, list[Constant]] = {}
        for constant in constants(module):
            together.setdefault(constant.statement, []).append(constant)
        for statement, group in together.items():
            names = [constant.name for constant in group]
            users = frozenset[ast.AST | None]().union(*(constant.users for constant in group))
            if any(name in elsewhere or f"{module.name}.{name}" in elsewhere for name in names):
                continue
            ways = {*names, *(f"{module.name}.{name}" for name in names)}
            if words & ways or (
                users
                and (
                    len(users) > 1
                    or None in users
                    or not is_plain(statement.value)
                    or statement.lineno != statement.end_lineno
                )
            ):
                continue
            for name in names:
                yield f"{module.name}.{name}", next(iter(users), None)


def test_what_one_function_uses_is_in_it_and_what_nobody_uses_is_gone() -> None:
    found = {name for name, _ in lonely(modules(), told())}

    # What both kernels agree on is for whoever writes a third.
    assert {name for name in found if not name.startswith("vkprotocol.")} == STAY


def test_every_function_is_named_by_somebody() -> None:
    found = set(unnamed(modules(), modules_of_tests()))
    x = Module("vkhost.x", "x.py", "def f(): ...\ndef g(): ...\ndef h():\n    g()")
    test = Module("tests.test_x", "t.py", "from vkhost.x import h")

    # Python's own protocols, and pytest's.
    assert {name for name in found if not re.search(r"\.(__|pytest_)\w+$", name)} == set()
    assert list(unnamed([x], [test])) == ["vkhost.x.f"]


@pytest.mark.parametrize(
    "text",
    [
        "MOST = 3",
        "MOST: Final = 1 << 3\ndef f(n):\n    return n > MOST or -MOST",
        "MOST = (3, 'b')\nclass C:\n    def f(self):\n        return lambda: MOST",
        "LEAST, MOST = 1, 3\ndef f(n):\n    return LEAST < n < MOST",
    ],
)
def test_a_lonely_name_is_seen(text: str) -> None:
    assert "vkhost.x.MOST" in {
        name for name, _ in lonely([Module("vkhost.x", "x.py", text)], set())
    }


@pytest.mark.parametrize(
    "text",
    [
        "MOST = 3\ndef f(n):\n    return n > MOST\ndef g(n):\n    return n < MOST",
        "MOST = 3\ndef f(n=MOST):\n    return n > MOST",
        "MOST = frozenset({3})\ndef f(n):\n    return n in MOST",
        "LEAST, MOST = 1, 3\ndef f(n):\n    return n < MOST\ndef g(n):\n    return n > LEAST",
        "TOLD = 3\ndef f(n):\n    return n > TOLD",
        "MOST = 3\nMOST = 4\ndef f(n):\n    return n > MOST",
        "KNOWN = 3",
    ],
)
def test_what_has_a_reason_to_stay_stays(text: str) -> None:
    user = Module("vkhost.y", "y.py", "from vkhost import x\nprint(x.KNOWN)")

    assert list(lonely([Module("vkhost.x", "x.py", text), user], {"TOLD"})) == []
