"""Guest-physical memory as the guest kernel reaches it: ordinary loads and stores.

A `ptep` is an address, as in C: of a frame in the DMAP, or of a page in KVA. The host sees none of
this but the page faults (facts, appendix A: else it would be Option D).
"""

from __future__ import annotations

from vkprotocol import insn
from vkprotocol.insn import MemOp

from vkguest.kern.param import phys_to_dmap
from vkguest.vkernel64.globaldata import GlobalData


async def access(gd: GlobalData, *ops: MemOp) -> tuple[int, ...]:
    """Execute `ops` in order. What the host cannot resolve is for kern_trap, and tried again."""
    reply = await gd.cpu_ops(*ops)
    values = reply.values
    while reply.errno:
        await gd.kernel.kern_trap(gd, ops[len(values)])
        reply = await gd.cpu_ops(*ops[len(values) :])
        values += reply.values
    return values


async def load(gd: GlobalData, va: int) -> int:
    return (await access(gd, insn.load(va)))[0]


async def store(gd: GlobalData, va: int, value: int) -> None:
    await access(gd, insn.store(va, value))


async def atomic_swap_long(gd: GlobalData, va: int, value: int) -> int:
    return (await access(gd, insn.swap(va, value)))[0]


async def atomic_cmpset_long(gd: GlobalData, va: int, old: int, new: int) -> bool:
    return (await access(gd, insn.cmpset(va, old, new)))[0] == 1


async def atomic_set_long(gd: GlobalData, va: int, bits: int) -> None:
    await access(gd, insn.or_bits(va, bits))


async def atomic_clear_long(gd: GlobalData, va: int, bits: int) -> None:
    await access(gd, insn.andn_bits(va, bits))


async def pmap_zero_page(gd: GlobalData, frame: int) -> None:
    await access(gd, insn.zero_page(phys_to_dmap(frame)))


async def pmap_copy_page(gd: GlobalData, src: int, dst: int) -> None:
    await access(gd, insn.copy_page(phys_to_dmap(dst), phys_to_dmap(src)))
