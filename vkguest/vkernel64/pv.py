"""PvEntry: one translation of a managed guest page. DragonFly vkernel64 `include/pmap.h`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkprotocol.param import PAGE_SHIFT
from vkprotocol.vpte import VPTE_PAGE_MASK

from vkguest.kern.param import KPT_FRAME, phys_to_dmap

if TYPE_CHECKING:
    from vkguest.vkernel64.pmap import Pmap
    from vkguest.vm.vm_page import VmPage


@dataclass(slots=True, eq=False)
class PvEntry:
    """On two lists: the page's (page spinlock) and the pmap's (pm_pteobj)."""

    pmap: Pmap
    va: int
    ptem: VmPage | None  # the page table page that holds the VPTE; None: the kernel's one

    @property
    def ptep(self) -> int:
        """Address of the VPTE: valid as long as this pv exists, since it holds the table page."""
        return pte_slot(KPT_FRAME if self.ptem is None else self.ptem.frame, self.va >> PAGE_SHIFT)


def pte_slot(frame: int, index: int) -> int:
    """Address of slot `index` (its low 9 bits) of the table in `frame`."""
    return phys_to_dmap(frame) + 8 * (index & VPTE_PAGE_MASK)
