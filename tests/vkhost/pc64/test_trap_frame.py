"""The trap frame of RUN in the vkernel's own memory: vm_vmspace.c:sys_vmspace_ctl, vkernel_trap."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol import messages as msg
from vkprotocol.effects import Thread
from vkprotocol.errno import Errno
from vkprotocol.frame import TFRAME_WORDS, frame_from, tframe_of, vframe_of
from vkprotocol.insn import Insn, Machine, Trapframe, addi, ld, li, st, syscall
from vkprotocol.mman import MADV_INVAL
from vkprotocol.param import KERNEL_KVA_START, VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import T_SYSCALL

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import vm_page_busy_wait
from vkhost.vm.vm_vmspace import vmspace_create

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
ID = 1
TEXT_FRAME, STACK_FRAME, OTHER = 10, 20, 21
KPTE = 8  # frame of the page table of KVA
TFRAME = KERNEL_KVA_START + 2 * PAGE  # its own page, number 2 of the table
VFRAME = TFRAME + 8 * TFRAME_WORDS
LOOP: tuple[Insn, ...] = (li(1, PAGE), addi(2, 2, 1), st(2, 1), ld(3, 1), syscall())


class Kva(Vkernel):
    """KVA shows STACK_FRAME by a VPTE; vmspace ID has a page to play with."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.do(vmspace_create(self.lwp, ID))
        vmspace = self.proc.p_vkernel.value.root[ID].vmspace
        self.vpagetable(self.tables({1: TEXT_FRAME << 12 | RW}), vmspace=vmspace)
        kva = {2: STACK_FRAME << 12 | RW, 3: OTHER << 12 | RW}
        self.vpagetable(
            self.tables(kva, root=5), start=KERNEL_KVA_START, size=1 << 21, vmspace=self.own
        )
        self.start()

    def write(self, frame: Trapframe, at: int = STACK_FRAME) -> None:
        for n, word in enumerate((*tframe_of(frame), *vframe_of(frame))):
            self.put(at, n, word)

    def words(self, at: int = STACK_FRAME) -> list[int]:
        return [self.word(at, n) for n in range(TFRAME_WORDS)]

    def request(self, tframe: int = TFRAME, vframe: int = VFRAME) -> msg.VmspaceCtl:
        bare = Trapframe(text=LOOP)
        return msg.VmspaceCtl(ID, 1, bare, tframe, vframe, lwp=0, seq=9)

    def running(self) -> Thread:
        """lwp 0 is in RUN."""

        async def ask() -> None:
            await self.lwp.requests.send(self.request())

        self.do(ask())
        lwp = next(t for t in self.ex.threads.values() if t.name == "lwp vkernel.0")
        self.until(lwp, "run.enter")
        return lwp

    def invalidate(self) -> None:
        """The vkernel takes the VPTE of its stack away, and says so."""
        vnode = self.vnode.object
        assert vnode is not None
        vnode.memq[KPTE].frame.words[2] = 0
        inval = msg.Madvise(lwp=1, seq=1, addr=TFRAME, length=PAGE, behav=MADV_INVAL)
        assert self.call(inval).errno == 0


def frame(**fields: Any) -> Trapframe:
    return Trapframe(regs=(0, 0, 41, *(0,) * 13), budget=100, text=LOOP, **fields)


@pytest.mark.parametrize("machine", [None, Machine(5, 0x246, 7, True)])
def test_what_a_frame_says_is_in_its_words(machine: Machine | None) -> None:
    said = Trapframe(
        pc=0 if machine else 3, regs=tuple(range(16)), trapno=12, addr=1 << 40, err=7, text=LOOP,
        budget=9, machine=machine,
    )  # fmt: skip

    assert frame_from(tframe_of(said), vframe_of(said), said) == said


def test_the_frame_is_copied_in_and_out_through_the_vkernels_own_vptes() -> None:
    k = Kva()
    k.write(frame())
    reply = k.call(k.request())

    assert (reply.errno, reply.frame) == (0, None)
    left = frame_from(k.words(), (0,), Trapframe(text=LOOP))
    assert (left.trapno, left.pc, left.regs[1:4]) == (T_SYSCALL, 5, (PAGE, 42, 42))
    assert k.word(KPTE, 2) & 0x60 == 0x60, "the walks have set A and M"


@pytest.mark.parametrize(
    ("tframe", "vframe"),
    [(TFRAME + 8 * PAGE, VFRAME), (TFRAME, VFRAME + 8 * PAGE), (0, VFRAME), (TFRAME + 4, VFRAME),
     (VM_MAX_USER_ADDRESS - 8, VFRAME), ((1 << 64) - 8, VFRAME)],
)  # fmt: skip
def test_a_frame_that_cannot_be_copied_in_is_efault(tframe: int, vframe: int) -> None:
    """vm_vmspace.c:sys_vmspace_ctl: nothing was run, and no reference is left."""
    k = Kva()
    k.write(frame())
    before = k.words()
    reply = k.call(k.request(tframe, vframe))

    assert (reply.errno, reply.frame) == (Errno.EFAULT, None)
    assert not k.named("run.enter")
    assert k.words() == before
    assert k.call(msg.VmspaceDestroy(ID, lwp=0, seq=2)).errno == 0


def test_a_frame_that_cannot_be_copied_out_is_efault() -> None:
    """vm_vmspace.c:vkernel_trap: the program has run, and where it got to is lost."""
    k = Kva()
    k.write(frame())
    lwp = k.running()
    k.invalidate()
    before = k.words()
    while not k.lwp.replies.queue:
        k.step(lwp)

    assert k.lwp.replies.queue[0].errno == Errno.EFAULT
    assert k.word(TEXT_FRAME) == 42
    assert k.words() == before
    assert k.lwp.vmspace is k.own
    k.do(k.lwp.replies.recv())
    assert k.call(msg.VmspaceDestroy(ID, lwp=0, seq=2)).errno == 0


def test_without_one_in_memory_there_is_nothing_to_fault_on() -> None:
    """The frame is part of the message: what no switch makes of the real kernel."""
    k = Kva()
    request = msg.VmspaceCtl(ID, 1, frame(), lwp=0, seq=9)

    assert k.call(request).errno == 0


def test_a_frame_whose_page_was_reclaimed_is_brought_back() -> None:
    """An EFAULT is for what the host cannot resolve; a page that has gone to the file it can."""
    k = Kva(policy="pv_entry")
    k.write(frame())
    lwp = k.running()
    obj = k.vnode.object
    assert obj is not None
    m = obj.memq[STACK_FRAME]

    async def reclaim() -> None:
        await obj.token.acquire()
        await vm_page_busy_wait(m, "test")
        await k.kernel.rmap.remove_all(m)
        await vm_page_free(m)
        await obj.token.release()

    k.do(reclaim())
    while not k.lwp.replies.queue:
        k.step(lwp)

    assert k.lwp.replies.queue[0].errno == 0
    assert frame_from(k.words(), (0,), Trapframe(text=LOOP)).regs[2] == 42
