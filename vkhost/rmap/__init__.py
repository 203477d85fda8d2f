"""Reverse maps: how the kernel finds the host PTEs of a page. One policy a file.

`Rmap` is what pmap and vm call. What the callers of the five queries believe is in facts 6.2;
whether a policy makes it true is what this program is for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from vkhost.tree import Tree

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.rmap.interface import Rmap

# Policy name -> where its class is. More are added by adding a line and a file.
POLICIES: Final[dict[str, str]] = {
    "pv_entry": "vkhost.rmap.pv_entry:PvEntry",
    "bloom": "vkhost.rmap.bloom:Bloom",
    "broadcast": "vkhost.rmap.broadcast:Broadcast",
    "extent_scan": "vkhost.rmap.extent_scan:ExtentScan",
    "hybrid": "vkhost.rmap.hybrid:Hybrid",
    "nested": "vkhost.rmap.nested:Nested",
    "notifier": "vkhost.rmap.notifier:Notifier",
    "removed": "vkhost.rmap.removed:Removed",
    "shadow": "vkhost.rmap.shadow:Shadow",
    "vpte_list": "vkhost.rmap.vpte_list:VpteList",
    "vptmapped": "vkhost.rmap.vptmapped:Vptmapped",
    "wired": "vkhost.rmap.wired:Wired",
}

# What a policy was built into. The others are proposals for the tree of the patch.
OWN_TREE: Final[dict[str, Tree]] = {
    "pv_entry": "5.4",
    "extent_scan": "2020",
    "removed": "2020",  # what came after it was not read, and mmap refuses the mapping anyway
    "wired": "2026",
}


def tree_of(policy: str) -> Tree:
    return OWN_TREE.get(policy, "patch")


def make_rmap(kernel: Kernel, policy: str) -> Rmap:
    module, _, name = POLICIES[policy].partition(":")
    made: Rmap = getattr(import_module(module), name)(kernel)
    return made
