"""Reverse maps: how the kernel finds the host PTEs of a page. One policy a file.

`Rmap` is what pmap and vm call. What the callers of the five queries believe is in facts 6.2;
whether a policy makes it true is what this program is for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

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


def make_rmap(kernel: Kernel, policy: str) -> Rmap:
    module, _, name = POLICIES[policy].partition(":")
    made: Rmap = getattr(import_module(module), name)(kernel)
    return made
