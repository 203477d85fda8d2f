"""The folders are the layering argument; this is what holds it up.

vkprotocol <- vkhost, vkguest <- vkemu, and inside vkemu one room above the other. A kernel module
awaits effects and nothing else. ARCHITECTURE.md shows the table as a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap

import pytest

from tests.style.source import (
    ROOT,
    Module,
    arrows,
    at_run_time,
    by_call,
    circles,
    imports,
    late,
    modules,
    room,
    targets,
    uses,
)

# Room -> whom it may import. An arrow that is not here is a decision to be made, and made here.
ROOMS: Mapping[str, str] = {
    # What both kernels agree on.
    "vkprotocol": "",
    # The host kernel. Its rooms know each other, as DragonFly's do: `vm_fault` enters a PTE and
    # `pmap` dirties a page. Only the kernel that is built knows which reverse map there is.
    "vkhost": "vkprotocol vkhost.kern vkhost.vm vkhost.pc64 vkhost.rmap",
    "vkhost.kern": "vkprotocol vkhost vkhost.vm vkhost.pc64",
    "vkhost.vm": "vkprotocol vkhost vkhost.kern vkhost.pc64",
    "vkhost.pc64": "vkprotocol vkhost vkhost.kern vkhost.vm",
    "vkhost.rmap": "vkprotocol vkhost vkhost.kern vkhost.vm vkhost.pc64",
    # The guest kernel.
    "vkguest": "vkprotocol vkguest.kern vkguest.vm vkguest.vkernel64",
    "vkguest.kern": "vkprotocol vkguest.vm vkguest.vkernel64",
    "vkguest.vm": "vkprotocol vkguest.kern vkguest.vkernel64",
    "vkguest.vkernel64": "vkprotocol vkguest vkguest.kern vkguest.vm",
    "vkguest.workloads": "vkprotocol vkguest vkguest.kern",
    # What a user runs, from the ground up.
    "verdict": "",
    "varint": "",
    "mistake": "verdict",
    "workers": "",
    "executors": "vkprotocol",
    "oracle": "vkprotocol",
    "books": "vkprotocol vkhost vkguest oracle",
    "exploration": "vkprotocol varint workers executors",
    "worlds": "vkprotocol executors exploration",
    "record": "vkprotocol vkhost vkguest verdict varint executors",
    "launch": "vkprotocol vkhost vkguest verdict mistake executors oracle books record",
    "serving": "vkprotocol vkhost vkguest executors",
    "litmus": "vkprotocol vkhost vkguest verdict mistake oracle books exploration record launch",
    "inspect": "vkprotocol vkhost verdict oracle record",
    "testing": "vkprotocol vkhost vkguest executors exploration launch worlds",
    "report": (
        "vkprotocol vkhost vkguest executors oracle exploration record launch litmus inspect"
    ),
    "soak": "vkprotocol vkguest verdict executors launch serving compare",
    "compare": "vkprotocol vkhost executors litmus",
    "matrix": "vkprotocol vkhost verdict workers executors exploration launch litmus",
    "mutation": (
        "vkprotocol vkhost vkguest verdict executors oracle exploration record launch litmus matrix"
    ),
    "stepping": "vkprotocol verdict executors exploration record launch litmus report",
    "commands": (
        "vkprotocol vkhost vkguest verdict workers executors oracle exploration record launch "
        "serving litmus inspect testing report compare matrix mutation stepping worlds "
        "soak"
    ),
    "vkemu": "workers testing worlds",
    "__main__": "commands",
}
# Inside exploration. The front and its rooms know each other, file by file without a circle; the
# rooms know only those named here.
EXPLORATION: Mapping[str, str] = {
    "primitives": "",
    "reduction": "primitives",
    "strategies": "reduction",
    "failure": "reduction strategies",
    "checking": "primitives failure",
    "sharing": "reduction strategies failure checking",
}
# Who computes the name of what it imports: from a table in which the names are whole, or of a
# program that a user has.
COMPUTED = {
    "vkhost.rmap",
    "vkemu",
    "vkemu.commands.cli",
    "vkemu.exploration",
    "vkemu.exploration.failure.origin",
    "vkemu.mutation.reach",
}
# The kernels' own recursion.
RECURSION = {"vkhost", "vkguest"}
EVENT_LOOPS = {"trio", "anyio", "asyncio", "uvloop", "curio"}
# A run must depend on its choices alone.
NONDETERMINISM = {
    "time", "datetime", "secrets", "uuid", "threading", "multiprocessing", "concurrent", "socket",
    "subprocess", "select", "selectors", "signal", "tempfile", "platform",
}  # fmt: skip
NONDETERMINISTIC = {"Random()", "id(...)", "hash(...)"}
# The files that a kernel is given, and a generator with a seed.
PARTLY = {
    "os": {"open", "close", "fstat", "pread", "pwrite", "ftruncate"}
    | {"O_RDWR", "O_CREAT", "O_EXCL", "O_CLOEXEC"},
    "random": {"Random"},
}
# All that a kernel imports when it is called for: it needs the extra `x86`.
UNICORN = {"vkhost.pc64.unicorn_cpu", "vkhost.pc64.machine_code"}


def breaches(module: Module, tree: frozenset[str] = frozenset()) -> list[str]:
    package, here = module.name.partition(".")[0], room(module.name)
    allowed = ROOMS.get(here, "").split()
    found = [
        f"{module.path}:{line}: {here} may not know {there} ({name})"
        for line, there, name in arrows(module, tree)
        if there not in allowed
    ]
    found += [
        f"{module.path}:{line}: imports what the table cannot read"
        for line, name in by_call(module)
        if not name and module.name not in COMPUTED
    ]
    return sorted({*found, *(() if package == "vkemu" else breaches_of_kernel(module, tree))})


def breaches_of_kernel(module: Module, tree: frozenset[str]) -> Iterator[str]:
    for line, name in {*imports(module), *uses(module)}:
        top, _, part = name.partition(".")
        where = f"{module.path}:{line}: {module.name} knows {name}"
        if top in EVENT_LOOPS:
            yield f"{where}: kernel code awaits effects, not an event loop"
        if (
            top in NONDETERMINISM
            or name in NONDETERMINISTIC
            or (top in PARTLY and part not in {"", *PARTLY[top]})
        ):
            yield f"{where}: a run must depend on its choices alone"
    for line, name in late(module, tree):
        if name not in UNICORN:
            yield f"{module.path}:{line}: {name} is imported in a function: it closes a circle?"


def inner(module: Module, tree: frozenset[str]) -> set[str]:
    """The rooms of exploration that a module of another one of them knows."""
    here = folder(module.name)
    return {folder(target) for _, target in targets(module, tree)} - {here, ""} if here else set()


def folder(name: str) -> str:
    """The room of exploration a module lies in; "" for the front, and outside."""
    _, inside, rest = name.partition("vkemu.exploration.")
    stem, dot, _ = rest.partition(".")
    return stem if inside and (dot or stem in EXPLORATION) else ""


def floors(rooms: Mapping[str, str]) -> list[list[str]]:
    """The rooms by floor, the ground first: each stands above all it knows; a kernel is one."""
    known = {
        name: [other for other in rooms[name].split() if "." not in other]
        for name in rooms
        if "." not in name
    }
    height: dict[str, int] = {}
    while len(height) < len(known):
        ready = [name for name in known if all(other in height for other in known[name])]
        for name in ready:
            height.setdefault(name, 1 + max((height[other] for other in known[name]), default=0))
    return [
        [name for name in known if height[name] == floor]
        for floor in range(1, max(height.values()) + 1)
    ]


def picture(rooms: Mapping[str, str]) -> str:
    """The table as ARCHITECTURE.md shows it, the top floor first."""
    lines = []
    for number, floor in reversed(list(enumerate(floors(rooms), 1))):
        for name in floor:
            text = f"    {number:2}  {name:<12}{rooms[name] or '-'}"
            lines += wrap(text, 100, subsequent_indent=" " * 20)
    return "\n".join(lines)


def test_nothing_breaches_the_layers() -> None:
    tree = list(modules())
    names = frozenset(module.name for module in tree)

    assert [breach for module in tree for breach in breaches(module, names)] == []


def test_no_arrow_of_the_table_is_unused() -> None:
    tree = list(modules())
    names = frozenset(module.name for module in tree)
    drawn: dict[str, set[str]] = {name: set() for name in ROOMS}
    assert {room(name) for name in names} == set(ROOMS)
    for module in tree:
        drawn[room(module.name)] |= {there for _, there, _ in arrows(module, names)}

    assert {name: set(allowed.split()) for name, allowed in ROOMS.items()} == drawn


def test_the_rooms_of_exploration_know_who_is_named() -> None:
    tree = list(modules())
    names = frozenset(module.name for module in tree)
    drawn: dict[str, set[str]] = {name: set() for name in EXPLORATION}
    for module in tree:
        if folder(module.name):
            drawn[folder(module.name)] |= inner(module, names)
    named = {name: set(allowed.split()) for name, allowed in EXPLORATION.items()}

    assert named == drawn
    assert circles({name: allowed.split() for name, allowed in EXPLORATION.items()}) == []
    planted = Module(
        "vkemu.exploration.reduction.x", "x.py", "from vkemu.exploration import failure"
    )
    assert not inner(planted, names) <= named["reduction"]


def test_no_room_reaches_itself() -> None:
    graph = {name: allowed.split() for name, allowed in ROOMS.items()}
    found = [c for c in circles(graph) if not {n.partition(".")[0] for n in c} <= RECURSION]

    assert found == []


def circles_of_kernels(tree: Iterable[Module]) -> list[list[str]]:
    """Files that need each other to run. A type may know its user."""
    kernels = {module.name: module for module in tree if not module.name.startswith("vkemu")}
    return circles(
        {
            name: {target for _, target in at_run_time(module, kernels) if target in kernels}
            for name, module in kernels.items()
        }
    )


def test_no_circle_of_files_in_a_kernel() -> None:
    tree = list(modules())
    planted = "if TYPE_CHECKING:\n    from vkhost.vm.vm_pager import vm_pager_has_page\n"
    typed = Module("vkhost.vm.vm_object", "x.py", planted)
    real = Module("vkhost.vm.vm_object", "x.py", planted + "from vkhost.vm import vm_pager")

    assert circles_of_kernels(tree) == []
    assert circles_of_kernels([*tree, typed]) == []
    assert len(circles_of_kernels([*tree, real])) == 1


def test_no_circle_of_more_than_two_files_in_vkemu() -> None:
    tree = {module.name: module for module in modules() if module.name.startswith("vkemu")}
    graph = {
        name: {target for _, target in targets(module, tree) if target in tree}
        for name, module in tree.items()
    }

    assert [circle for circle in circles(graph) if len(circle) > 2] == []


def test_architecture_shows_this_table() -> None:
    assert picture(ROOMS) in (ROOT / "ARCHITECTURE.md").read_text()


def test_a_circle_is_seen() -> None:
    assert circles({"a": "b", "b": "c", "c": "a", "d": "a"}) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vkhost.pc64.pmap", "import vkguest.kernel"),
        ("vkguest.vkernel64.pmap", "from vkhost import kernel"),
        ("vkhost.pc64.cpu", "from vkemu.executors.controlled import Execution"),
        ("vkhost.vm.vm_page", "from vkhost.rmap import pv_entry"),
        ("vkprotocol.codec", "import vkhost.kernel"),
        ("vkprotocol.codec", "import asyncio"),
        ("vkhost.pc64.cpu", "def f():\n    import trio"),
        ("vkguest.vkernel64.go_user", "from anyio import sleep"),
        ("vkhost.vm.vm_pageout", "from time import monotonic"),
        ("vkguest.workloads.mixed", "from random import randrange"),
        ("vkguest.workloads.mixed", "import random as r\nr.shuffle([])"),
        ("vkguest.workloads.mixed", "from random import Random\nRandom()"),
        ("vkguest.vkernel64.image", "import os\nos.urandom(8)"),
        ("vkguest.vkernel64.image", "from os import urandom as open"),
        ("vkhost.vm.vnode", "import os\nos.environ['HOME']"),
        ("vkhost.vm.vm_page", "def f(m):\n    return hash(m)"),
        ("vkprotocol.connection", "import socket"),
        ("vkhost.kern.proc", "def f():\n    from vkhost.kern.syscall import lwp_main"),
        ("vkemu.litmus.decide", "from vkemu.report import told"),
        (
            "vkemu.exploration.run",
            "if TYPE_CHECKING:\n    from vkemu.launch.outcome import Outcome",
        ),
        ("vkemu.executors.live", "def f():\n    from vkemu.record.log import EventLog"),
        ("vkemu.litmus.decide", "import_module('vkemu.report.told')"),
        ("vkemu.litmus.decide", "import_module('..report.told', __package__)"),
        ("vkemu.litmus.decide", "import_module(f'vkemu.report.{name}')"),
        ("vkemu.litmus.decide", "from tests.shell import vkemu"),
        ("vkguest.kern.proc", "__import__('vkhost')"),
        ("vkhost.vm.vm_page", "importlib.import_module('time')"),
        ("vkhost.vm.vm_page", "HOME = 'vkhost.rmap.pv_entry:PvEntry'"),
        ("vkemu.oracle.frame", "HOME = 'vkhost.kernel:Kernel.panic'"),
        ("vkemu.cupboard.jar", "from vkemu.verdict import UsageError"),
    ],
)
def test_a_breach_is_seen(name: str, text: str) -> None:
    tree = frozenset(module.name for module in modules())

    assert breaches(Module(name, f"{name}.py", text), tree) != []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vkhost.pc64.cpu", "from vkprotocol.effects import Cell"),
        ("vkhost.rmap.bloom", "from . import pv_entry"),
        ("vkguest.workloads.mixed", "from random import Random"),
        ("vkemu.executors.live", "import trio, vkprotocol.effects"),
        ("vkhost.vm.vnode", "import os\nos.pread(0, 1, 0)"),
        ("vkhost.pc64.trap", "def f():\n    from vkhost.pc64.machine_code import MachineCode"),
        ("vkemu.launch.assemble", "from vkhost.vm.vm_meter import Thresholds"),
    ],
)
def test_what_is_allowed_passes(name: str, text: str) -> None:
    tree = frozenset(module.name for module in modules())

    assert breaches(Module(name, f"{name}.py", text), tree) == []
