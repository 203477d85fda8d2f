"""The swap pager: pages of anonymous objects. DragonFly sys/vm/swap_pager.c.

Blocks are pages of a swap area kept in memory; which block holds which page is in
`obj.swblocks`, under the object's token.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import Cell, Effect, Lock, Shared, Step
from vkprotocol.guarded import guarded_by

from vkhost.kern.lockorder import SWAP_SPIN
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP, VmObject
from vkhost.vm.vm_page import PG_SWAPPED, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_dirty import vm_page_flag_clear, vm_page_flag_set, vm_page_undirty

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


@guarded_by("spin", "_unused")
class SwapPager:
    """The swap area. `_unused` is guarded by `spin`; `vm_swap_size`, free blocks, is atomic."""

    def __init__(self, kernel: Kernel, pages: int) -> None:
        self.kernel = kernel
        self.pages = pages
        self.spin = Lock("swap.spin", rank=SWAP_SPIN)
        self.vm_swap_size = Cell("vm_swap_size", pages)
        # nswap_lowat: nearly full below this (swap_pager.c scales it to 4 % of the area).
        self.nswap_lowat = max(1, pages // 25) if pages else 0
        self._unused = list(range(pages - 1, -1, -1))
        self._blocks: dict[int, Shared] = {}  # state: the bytes

    async def full(self) -> bool:
        """swap_pager_full: nothing more can be paged out."""
        return int(await self.vm_swap_size.load()) == 0

    async def almost_full(self) -> bool:
        """swap_pager_almost_full."""
        return int(await self.vm_swap_size.load()) <= self.nswap_lowat

    async def getswapspace(self) -> int | None:
        """swp_pager_getswapspace: one block."""
        async with self.spin:
            block = self._unused.pop() if self._unused else None
        if block is not None:
            await self.vm_swap_size.add(-1)
        return block

    async def freeswapspace(self, block: int) -> None:
        """swp_pager_freeswapspace."""
        async with self.spin:
            self._unused.append(block)
        await self.vm_swap_size.add(1)

    async def freespace_all(self, obj: VmObject) -> None:
        """swap_pager_freespace_all: the object needs none of it. Token exclusive."""
        blocks = obj.swblocks
        obj.swblocks = {}
        for _, block in sorted(blocks.items()):
            await self.freeswapspace(block)

    async def freespace(self, obj: VmObject, start: int, end: int) -> None:
        """swap_pager_freespace: of the pages [start, end). Token exclusive."""
        for pindex in sorted(p for p in obj.swblocks if start <= p < end):
            await self.freeswapspace(obj.swblocks.pop(pindex))

    def _block(self, block: int) -> Shared:
        shared = self._blocks.get(block)
        if shared is None:
            shared = self._blocks[block] = Shared(("swap", block), b"")
        return shared

    @coroutine
    def read_block(self, block: int) -> Step:
        shared = self._block(block)
        yield Effect(shared, "read", write=False)
        return shared.state

    @coroutine
    def write_block(self, block: int, content: bytes) -> Step:
        shared = self._block(block)
        yield Effect(shared, "write", write=True)
        shared.state = content


def swap_pager_haspage(obj: VmObject, pindex: int) -> bool:
    """Token held."""
    return pindex in obj.swblocks


async def swap_pager_getpage(obj: VmObject, pindex: int, m: VmPage) -> None:
    """Fill the busied page from its block, which it keeps."""
    kernel = obj.kernel
    content = await kernel.swap.read_block(obj.swblocks[pindex])
    await m.frame.write_bytes(content)
    kernel.emit("pager.get", obj.id, pindex, m.pfn)
    m.valid = VM_PAGE_BITS_ALL
    await vm_page_undirty(m)
    await vm_page_flag_set(m, PG_SWAPPED)
    kernel.vmmeter.count("v_swapin")
    kernel.vmmeter.count("v_swappgsin")


async def swap_pager_putpage(obj: VmObject, pindex: int, m: VmPage) -> bool:
    """Write the soft-busied page to a block; False when swap is full."""
    kernel = obj.kernel
    async with obj.token:
        if obj.type == OBJT_DEFAULT:
            obj.type = OBJT_SWAP  # swp_pager_meta_convert
        block = obj.swblocks.get(pindex)
        if block is None:
            block = await kernel.swap.getswapspace()
            if block is None and "swap-full-is-written" in kernel.mutants:
                await vm_page_undirty(m)
                return True
            if block is None:
                return False
            obj.swblocks[pindex] = block
    content = await m.frame.read_bytes()
    # Now, not after the write: what is stored from here on is not in it.
    kernel.emit("pager.put", obj.id, pindex, m.pfn)
    await kernel.swap.write_block(block, content)
    await vm_page_undirty(m)
    await vm_page_flag_set(m, PG_SWAPPED)
    kernel.vmmeter.count("v_swapout")
    kernel.vmmeter.count("v_swappgsout")
    return True


async def swap_pager_unswapped(m: VmPage) -> None:
    """The page is about to differ from its block: free that. Page busied, token exclusive."""
    obj = m.object
    assert obj is not None
    block = obj.swblocks.pop(m.pindex, None)
    await vm_page_flag_clear(m, PG_SWAPPED)
    if block is not None:
        await obj.kernel.swap.freeswapspace(block)
