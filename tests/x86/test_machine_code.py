"""One instruction after the other: precise faults, signals between them, what a step may hold."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol import messages as msg
from vkprotocol.effects import CURTHREAD
from vkprotocol.errno import Errno
from vkprotocol.insn import Machine, Mem, MemOp, Trapframe
from vkprotocol.vkernel import (
    PGEX_I,
    PGEX_W,
    SIGUSR1,
    T_BPTFLT,
    T_DIVIDE,
    T_DNA,
    T_FAST_SYSCALL,
    T_PAGEFLT,
    T_PRIVINFLT,
    T_PROTFLT,
)
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_NX

from tests.vkhost.vkernel import RW, R, Vkernel
from vkhost.pc64.machine_code import locked
from vkhost.vm.vm_vmspace import vmspace_create

PAGE = 4096
ID = 1
TEXT, DATA, MORE = 1, 2, 3  # pages by number: their frames are 10 more
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)


class Guest(Vkernel):
    """Page TEXT holds `code`, DATA and MORE are writable unless `vptes` says otherwise."""

    def __init__(
        self, code: str, vptes: dict[int, int] | None = None, vcpus: int = 1, **options: Any
    ) -> None:
        super().__init__(vcpus=vcpus, **options)
        self.code = bytes.fromhex(code)
        self.vnode.content[11 * PAGE : 11 * PAGE + len(self.code)] = self.code
        self.do(vmspace_create(self.lwp, ID))
        self.vmspace = self.proc.p_vkernel.value.root[ID].vmspace
        mapped = {TEXT: 11 << 12 | R, DATA: 12 << 12 | RW, MORE: 13 << 12 | RW}
        self.vpagetable(self.tables({**mapped, **(vptes or {})}), vmspace=self.vmspace)
        self.start()

    def frame(self, budget: int = 1000, fpfault: bool = False, **regs: int) -> Trapframe:
        names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
        values = tuple(regs.pop(name, 0) for name in names) + (0,) * 8
        rip = regs.pop("rip", TEXT * PAGE)
        assert not regs
        return Trapframe(regs=values, budget=budget, machine=Machine(rip=rip, fpfault=fpfault))

    def enter_user(self, **options: Any) -> msg.Reply:
        return self.call(msg.VmspaceCtl(lwp=0, seq=1, id=ID, cmd=1, frame=self.frame(**options)))

    def run_user(self, **options: Any) -> tuple[Trapframe, int]:
        """The frame that comes back, and rip in it from the beginning of the text."""
        reply = self.enter_user(**options)
        assert reply.errno == 0
        assert reply.frame is not None
        assert reply.frame.machine is not None
        return reply.frame, reply.frame.machine.rip - TEXT * PAGE


STEPS = [{}, {"user_insns": 100}, {"user_insns": 100, "merge_accesses": True}]


@pytest.mark.parametrize("steps", STEPS, ids=["one", "many", "merged"])
def test_a_loop_through_memory_ends_as_on_any_processor(steps: dict[str, Any]) -> None:
    # again: add [rbx], rcx ; mov rax, [rbx] ; dec rcx ; jne again ; syscall
    k = Guest("48010b 488b03 48ffc9 75f5 0f05", **steps)
    frame, rip = k.run_user(rbx=DATA * PAGE + 16, rcx=10)

    assert (frame.trapno, rip) == (T_FAST_SYSCALL, len(k.code))
    assert frame.regs[RAX] == k.word(12, 2) == 55
    assert frame.budget == 1000 - 41
    assert k.word(4, DATA) & (VPTE_A | VPTE_M) == VPTE_A | VPTE_M


@pytest.mark.parametrize("steps", STEPS, ids=["one", "many", "merged"])
def test_a_fault_is_precise_and_the_instruction_restarts(steps: dict[str, Any]) -> None:
    # inc rax ; mov [rbx], rax ; inc rax ; syscall
    k = Guest("48ffc0 488903 48ffc0 0f05", {DATA: 12 << 12 | R}, **steps)
    frame, rip = k.run_user(rbx=DATA * PAGE + 0x123)

    at = DATA * PAGE + 0x123
    assert (frame.trapno, frame.addr, frame.err & PGEX_W) == (T_PAGEFLT, at, PGEX_W)
    assert (rip, frame.regs[RAX], k.word(12)) == (3, 1, 0)


def test_a_store_over_two_pages_is_whole_or_not_at_all() -> None:
    k = Guest("48890b 0f05", {MORE: 0})
    frame, rip = k.run_user(rbx=MORE * PAGE - 4, rcx=0x1111222233334444)

    assert (frame.trapno, frame.addr, rip) == (T_PAGEFLT, MORE * PAGE, 0)
    assert k.word(12, 511) == 0

    k = Guest("48890b 0f05")
    frame, rip = k.run_user(rbx=MORE * PAGE - 4, rcx=0x1111222233334444)
    assert (k.word(12, 511), k.word(13)) == (0x3333444400000000, 0x11112222)


def test_text_that_may_not_be_executed_faults_on_the_fetch() -> None:
    k = Guest("0f05", {TEXT: 11 << 12 | R | VPTE_NX})
    frame, rip = k.run_user()

    assert (frame.trapno, frame.addr, frame.err, rip) == (T_PAGEFLT, TEXT * PAGE, PGEX_I, 0)


def test_an_instruction_over_two_pages_needs_both() -> None:
    k = Guest("90", {DATA: 0})
    k.vnode.content[12 * PAGE - 1 : 12 * PAGE] = b"\x48"
    frame, _ = k.run_user(rip=DATA * PAGE - 1)
    assert (frame.trapno, frame.addr, frame.err) == (T_PAGEFLT, DATA * PAGE, PGEX_I)

    k = Guest("90")
    k.vnode.content[12 * PAGE - 1 : 12 * PAGE] = b"\x48"
    k.vnode.content[12 * PAGE : 12 * PAGE + 4] = bytes.fromhex("ffc00f05")
    frame, rip = k.run_user(rip=DATA * PAGE - 1)
    assert (frame.trapno, rip, frame.regs[RAX]) == (T_FAST_SYSCALL, PAGE + 4, 1)


@pytest.mark.parametrize(
    ("code", "trapno", "rip"),
    [
        ("0f0b", T_PRIVINFLT, 0),  # ud2
        ("c5fd6f03", T_PRIVINFLT, 0),  # vmovdqa: AVX
        ("f4", T_PROTFLT, 0),  # hlt
        ("0f20d8", T_PROTFLT, 0),  # mov rax, cr3
        ("48f7f1", T_DIVIDE, 0),  # div rcx
        ("cc", T_BPTFLT, 1),
        ("cd80", T_PROTFLT, 0),
        ("48ffc0 48f7f1", T_DIVIDE, 3),
    ],
)
@pytest.mark.parametrize("steps", STEPS, ids=["one", "many", "merged"])
def test_exceptions_have_dragonflys_numbers(
    code: str, trapno: int, rip: int, steps: dict[str, Any]
) -> None:
    k = Guest(code, **steps)
    for _ in range(3):  # one exception leaves no mark for the next
        frame, at = k.run_user()
        assert (frame.trapno, at) == (trapno, rip)


def test_the_fpu_traps_while_it_holds_the_state_of_another() -> None:
    k = Guest("48ffc0 d9e8 0f05")

    frame, rip = k.run_user(fpfault=True)
    assert (frame.trapno, rip) == (T_DNA, 3)
    frame, rip = k.run_user()
    assert (frame.trapno, rip) == (T_FAST_SYSCALL, 7)


def test_rdtsc_is_the_virtual_clock_and_cpuid_the_hosts() -> None:
    frame, rip = Guest("0f31 0f05").run_user(rax=5, rdx=5)
    assert (frame.trapno, rip, frame.regs[RAX], frame.regs[RDX]) == (T_FAST_SYSCALL, 4, 0, 0)

    frame, _ = Guest("0fa2 89c8 0f05").run_user(rax=1)  # cpuid ; mov eax, ecx
    assert frame.regs[RAX] & 1 << 28  # AVX: what the vkernel masks is not what the program sees


@pytest.mark.parametrize("steps", STEPS, ids=["one", "many", "merged"])
def test_code_that_writes_its_own_page_executes_what_it_wrote(steps: dict[str, Any]) -> None:
    # mov byte [rip + 2], 0x05 ; nop ; nop ; (0f 0b becomes 0f 05)
    k = Guest("c6050300000005 90 90 0f0b", {TEXT: 11 << 12 | RW}, **steps)
    frame, rip = k.run_user()

    assert (frame.trapno, rip) == (T_FAST_SYSCALL, len(k.code))


def test_the_budget_and_signals_end_it_between_two_instructions() -> None:
    k = Guest("48ffc0 ebfb")
    reply = k.enter_user(budget=7)
    assert reply.errno == Errno.EINTR
    assert reply.frame is not None
    assert (reply.frame.regs[RAX], reply.frame.budget) == (4, 0)

    k = Guest("48ffc0 ebfb", vcpus=2)
    request = msg.VmspaceCtl(lwp=0, seq=1, id=ID, cmd=1, frame=k.frame(budget=1 << 20))
    k.do(k.proc.lwps[0].requests.send(request))
    runs = next(thread for thread in k.ex.threads.values() if thread.name == "lwp vkernel.0")
    for _ in range(200):
        if runs.runnable:
            k.step(runs)
    k.call(msg.Kill(lwp=1, seq=1, target=0, signo=SIGUSR1))
    while runs.runnable:
        k.step(runs)
    reply = k.do(k.proc.lwps[0].replies.recv())
    CURTHREAD[0] = None
    assert reply.errno == Errno.EINTR


def test_a_locked_instruction_is_one_step_and_another_is_two() -> None:
    for code, steps in (("f0480103", 1), ("480103", 2), ("488703", 1), ("f0480fb10b", 1)):
        k = Guest(code + "0f05")
        k.run_user(rbx=DATA * PAGE)
        names = [event[0] for event in k.events]
        at = len(names) - names[::-1].index("mem.store") - 1
        between = names[at - 1]
        assert between == "mem.load", code
        assert locked(bytes.fromhex(code)) is (steps == 1), code


def test_accesses_are_the_cpus_own_events() -> None:
    # mov [rbx + 3], cl ; syscall
    k = Guest("884b03 0f05")
    k.put(12, 0, 0x1111111111111111)
    k.run_user(rbx=DATA * PAGE, rcx=0xEE)
    pmap = k.vmspace.pmap.id
    pfn = k.named("tlb.fill")[-1][4]

    stored = k.named("mem.store")[-1]
    assert stored == ("mem.store", 0, pmap, DATA * PAGE, pfn, 0, 0x11111111EE111111)
    fetches = [e for e in k.named("mem.load") if e[2] == pmap and e[3] == TEXT * PAGE]
    assert len(fetches) == 2


def test_a_merged_step_says_so() -> None:
    k = Guest("48890b 4883c308 48890b 48890b 0f05", user_insns=100, merge_accesses=True)
    k.run_user(rbx=DATA * PAGE, rcx=9)

    assert k.named("user.insns")[-2] == ("user.insns", k.lwp.id, TEXT * PAGE, 4)
    assert k.named("user.insns")[-1][3] == 1  # the system call
    assert [event[5] for event in k.named("mem.store")[-2:]] == [0, 1]


def test_a_page_at_two_addresses_is_one_page_in_a_merged_step() -> None:
    # mov [rbx], rcx ; mov rax, [rsi] ; syscall
    k = Guest("48890b 488b06 0f05", {MORE: 12 << 12 | RW}, user_insns=100, merge_accesses=True)
    frame, _ = k.run_user(rbx=DATA * PAGE, rsi=MORE * PAGE, rcx=77)

    assert frame.regs[RAX] == 77


def test_fpu_state_goes_to_guest_memory_and_back() -> None:
    k = Guest("d9e8 0f05")
    k.mmap(k.own, 0x100_0000, 64 * PAGE, 1)
    at = 0x100_0000 + 20 * PAGE
    k.run_user()

    def ops(*operations: Any) -> msg.Reply:
        return k.call(msg.CpuOps(lwp=0, seq=1, ops=operations))

    assert ops(MemOp(Mem.FXSAVE, at, 1), MemOp(Mem.FXSAVE, at + 512, 0)).errno == 0
    assert k.word(20, 1) == TEXT * PAGE  # the instruction pointer
    assert k.word(20, 4) == 1 << 63  # st(0) = 1.0
    assert k.word(20, 3) >> 32 == 0xFFFF  # the mask of MXCSR
    assert ops(MemOp(Mem.FNINIT, 0), MemOp(Mem.FXSAVE, at + 1024, 1)).errno == 0
    assert k.word(20, 128 + 1) == 0
    assert ops(MemOp(Mem.FXRSTOR, at, 1), MemOp(Mem.FXSAVE, at + 1024, 1)).errno == 0
    assert [k.word(20, 128 + n) for n in range(64)] == [k.word(20, n) for n in range(64)]
