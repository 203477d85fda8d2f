"""The FPU, given to one lwp at a time. DragonFly vkernel64 `x86_64/npx.c`, `swtch.s`.

The state of the lwp that used the FPU last stays in it (`gd.npxthread`). Another lwp enters RUN
with PGEX_FPFAULT, and its first FPU instruction traps with T_DNA: `npxdna` loads what it had. An
lwp that loses its vCPU takes its state along, in 512 bytes of guest memory.

As it was before the patch: fxsave without REX.W, which cuts the instruction pointer to 32 bits
(quirk `fxsave32`); and 0xFFBF in place of npx_mxcsr_mask, which denies DAZ (`mxcsr_mask_ffbf`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.insn import fninit, fxrstor, fxsave, load, store, zero_page

from vkguest.kern.errors import VmWait
from vkguest.kern.param import phys_to_dmap
from vkguest.vkernel64.dmap import access
from vkguest.vm.vm_page import (
    VM_ALLOC_SYSTEM,
    vm_page_alloc,
    vm_page_busy_try,
    vm_page_free,
    vm_page_unwire,
    vm_page_wakeup,
    vm_page_wire,
)

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

INITIAL_NPXCW: Final = 0x37F
INITIAL_MXCSR: Final = 0x1F80
DEFAULT_MXCSR_MASK: Final = 0xFFBF  # of a processor that says nothing: no DAZ
CONTROL_WORD, MXCSR_WORD = 0, 3  # words of the image; MXCSR is the lower half of its word
IMAGE_WORDS: Final = 64


async def npx_mxcsr_mask(gd: GlobalData) -> int:
    """init.c:main asks the host, which has read it from an fxsave image; 0 is the default. The old
    form never looked."""
    if gd.kernel.quirks.mxcsr_mask_ffbf:
        return DEFAULT_MXCSR_MASK
    reply = await gd.sysctl("hw.mxcsr_mask")
    return reply.value if not reply.errno and reply.value else DEFAULT_MXCSR_MASK


def _rexw(gd: GlobalData) -> bool:
    return not gd.kernel.quirks.fxsave32


def _image(lp: Lwp) -> int:
    assert lp.md is not None
    assert lp.md.savefpu is not None
    return phys_to_dmap(lp.md.savefpu.frame)


async def npxdna(gd: GlobalData, lp: Lwp) -> bool:
    """The device is not available: the FPU is to be this lwp's. True: its MXCSR had bits that are
    not allowed, which is a SIGFPE. Raises VmWait."""
    md = lp.md
    assert md is not None
    if md.savefpu is None:
        m = await vm_page_alloc(gd, None, 0, VM_ALLOC_SYSTEM, "savefpu")
        if m is None:
            raise VmWait
        await vm_page_wire(gd, m)
        await vm_page_wakeup(m)
        md.savefpu = m
    at = _image(lp)
    if not md.usingfp:
        md.usingfp = True
        await _npxinit(gd, at)
    gd.npxthread = lp
    md.npxgd = gd
    bad = await _mask_mxcsr(gd, at)
    await access(gd, fxrstor(at, rexw=_rexw(gd)))
    return bad


async def _npxinit(gd: GlobalData, at: int) -> None:
    """npxinit(__INITIAL_NPXCW__): what a process finds that has never used the FPU."""
    await access(
        gd,
        zero_page(at),
        store(at + 8 * CONTROL_WORD, INITIAL_NPXCW),
        store(at + 8 * MXCSR_WORD, gd.kernel.npx_mxcsr_mask << 32 | INITIAL_MXCSR),
    )


async def _mask_mxcsr(gd: GlobalData, at: int) -> bool:
    """Else fxrstor would fault in the kernel."""
    (word,) = await access(gd, load(at + 8 * MXCSR_WORD))
    u32 = (1 << 32) - 1
    if not word & u32 & ~gd.kernel.npx_mxcsr_mask:
        return False
    kept = word & ~u32 | word & gd.kernel.npx_mxcsr_mask
    await access(gd, store(at + 8 * MXCSR_WORD, kept))
    gd.kernel.emit("console", f"{gd.kernel.name}: FXRSTOR: illegal FP MXCSR {word & u32:08x}")
    return True


async def npxsave(lp: Lwp) -> None:
    """swtch.s:cpu_lwkt_switch: the lwp leaves its vCPU, or somebody needs its state in memory."""
    md = lp.md
    if md is None or md.npxgd is None:
        return
    gd, md.npxgd = md.npxgd, None
    await access(gd, fxsave(_image(lp), rexw=_rexw(gd)), fninit())
    gd.npxthread = None


async def npxfork(gd: GlobalData, parent: Lwp, child: Lwp) -> None:
    """vm_machdep.c:cpu_fork: the child has the parent's state, in memory of its own. Raises VmWait,
    with nothing done."""
    assert parent.md is not None
    assert child.md is not None
    if not parent.md.usingfp:
        return
    await npxsave(parent)
    m = await vm_page_alloc(gd, None, 0, VM_ALLOC_SYSTEM, "savefpu")
    if m is None:
        raise VmWait
    await vm_page_wire(gd, m)
    await vm_page_wakeup(m)
    child.md.savefpu = m
    child.md.usingfp = True
    await write_image(gd, child, await read_image(gd, parent))


async def npxexit(gd: GlobalData, lp: Lwp) -> None:
    """The lwp ends. What it has in the FPU is of no use to anybody."""
    md = lp.md
    if md is None:
        return
    if md.npxgd is not None:
        md.npxgd.npxthread = None
        md.npxgd = None
    await npxreset(gd, lp)


async def npxreset(gd: GlobalData, lp: Lwp) -> None:
    """cpu_regs.c:exec_setregs: a new program begins without a state."""
    md = lp.md
    assert md is not None
    if md.npxgd is not None:
        md.npxgd.npxthread = None
        md.npxgd = None
    md.usingfp = False
    m, md.savefpu = md.savefpu, None
    if m is not None:
        took = await vm_page_busy_try(m)
        assert took, "nobody else knows this page"
        await vm_page_unwire(gd, m)
        await vm_page_free(gd, m)


async def read_image(gd: GlobalData, lp: Lwp) -> tuple[int, ...]:
    at = _image(lp)
    return await access(gd, *(load(at + 8 * n) for n in range(IMAGE_WORDS)))


async def write_image(gd: GlobalData, lp: Lwp, words: tuple[int, ...]) -> None:
    at = _image(lp)
    await access(gd, *(store(at + 8 * n, word) for n, word in enumerate(words)))


async def npxpush(gd: GlobalData, lp: Lwp) -> tuple[int, ...]:
    """npx.c:npxpush: the state for a signal frame, () when there is none; the handler starts with a
    fresh one."""
    md = lp.md
    assert md is not None
    if not md.usingfp or "npx-not-pushed" in gd.mutants:
        return ()
    await npxsave(lp)
    md.usingfp = False
    return await read_image(gd, lp)


async def npxpop(gd: GlobalData, lp: Lwp, words: tuple[int, ...]) -> bool:
    """npx.c:npxpop: the state as sigreturn finds it in the frame, where the program may have
    changed it. True: SIGFPE."""
    md = lp.md
    assert md is not None
    if "npx-not-pushed" in gd.mutants:
        return False
    await npxsave(lp)
    md.usingfp = bool(words)
    if not words:
        return False
    await write_image(gd, lp, words)
    return await _mask_mxcsr(gd, _image(lp))
