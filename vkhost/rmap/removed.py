"""2021 - 2025: MAP_VPAGETABLE is gone. mmap refuses it, so no vkernel boots; the rest is the
extent scan, which is right for what is left.

DragonFly commit 4d4f84f5.
"""

from __future__ import annotations

from vkhost.rmap.extent_scan import ExtentScan


class Removed(ExtentScan):
    name = "removed"

    def mmap_vpagetable_allowed(self) -> bool:
        return False
