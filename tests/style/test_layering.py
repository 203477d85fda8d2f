"""The folders are the layering argument; this is what holds it up.

vkprotocol <- vkhost, vkguest <- vkemu. A kernel module awaits effects and nothing else.
"""

from __future__ import annotations

import pytest

from tests.style.source import PACKAGES, Module, imports, modules

# Package -> which of ours it may import besides itself.
MAY_IMPORT = {
    "vkprotocol": set[str](),
    "vkhost": {"vkprotocol"},
    "vkguest": {"vkprotocol"},
    "vkemu": {"vkprotocol", "vkhost", "vkguest"},
}
EVENT_LOOPS = {"trio", "anyio", "asyncio", "uvloop", "curio"}
# A run must depend on its choices alone.
NONDETERMINISM = {"time", "datetime", "secrets", "uuid", "threading", "multiprocessing"}
# The edge of the kernels: the one module of each that moves bytes between a stream and a Mailbox.
EDGES = {"vkhost.server", "vkguest.client"}


def breaches(module: Module) -> list[str]:
    package = module.name.partition(".")[0]
    found = []
    for line, name in imports(module):
        top = name.partition(".")[0]
        where = f"{module.path}:{line}: {module.name} imports {name}"
        if top in PACKAGES and top != package and top not in MAY_IMPORT[package]:
            found.append(where)
        if package == "vkemu" or module.name in EDGES:
            continue
        if top in EVENT_LOOPS:
            found.append(f"{where}: kernel code awaits effects, not an event loop")
        if top in NONDETERMINISM or (top == "random" and name not in {"random", "random.Random"}):
            found.append(f"{where}: a run must depend on its choices alone")
    return sorted(set(found))


def test_nothing_breaches_the_layers() -> None:
    assert [breach for module in modules() for breach in breaches(module)] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vkhost.pc64.pmap", "import vkguest.vkernel64.pmap"),
        ("vkguest.vkernel64.pmap", "from vkhost import vm_page"),
        ("vkhost.pc64.cpu", "from vkemu.executors.controlled import Execution"),
        ("vkprotocol.codec", "import vkhost"),
        ("vkprotocol.codec", "import asyncio"),
        ("vkhost.pc64.cpu", "def f():\n    import trio"),
        ("vkguest.go_user", "from anyio import sleep"),
        ("vkhost.vm.vm_pageout", "from time import monotonic"),
        ("vkguest.workload", "from random import randrange"),
    ],
)
def test_a_breach_is_seen(name: str, text: str) -> None:
    assert breaches(Module(name, f"{name}.py", text)) != []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vkhost.pc64.cpu", "from vkprotocol.effects import Cell"),
        ("vkhost.rmap", "from . import pv_entry"),
        ("vkhost.server", "import anyio"),
        ("vkguest.workload", "from random import Random"),
        ("vkemu.executors.live", "import trio, vkhost.kernel"),
    ],
)
def test_what_is_allowed_passes(name: str, text: str) -> None:
    assert breaches(Module(name, f"{name}.py", text)) == []
