"""RUN: guest code, the faults it takes, and how it leaves."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol import messages as msg
from vkprotocol.effects import Thread
from vkprotocol.errno import Errno
from vkprotocol.insn import Insn, Op, Trapframe, addi, beq, bne, cas, fetch, ld, li, st, syscall
from vkprotocol.vkernel import (
    PGEX_I,
    PGEX_W,
    SIGUSR1,
    T_ALIGNFLT,
    T_PAGEFLT,
    T_PRIVINFLT,
    T_SYSCALL,
)
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_NX

from tests.vkhost.vkernel import RW, R, Vkernel
from vkhost.vm.vm_vmspace import vmspace_create

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
ID = 1
U64 = (1 << 64) - 1


class Guest(Vkernel):
    """vmspace ID maps the image by its tables; the lwps serve requests."""

    def __init__(self, vptes: dict[int, int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.do(vmspace_create(self.lwp, ID))
        self.vmspace = self.proc.p_vkernel.value.root[ID].vmspace
        self.vpagetable(self.tables(vptes or {}), vmspace=self.vmspace)
        self.start()

    def run_user(
        self, *text: Insn, regs: dict[int, int] | None = None, budget: int = 1000, lwp: int = 0
    ) -> msg.Reply:
        values = tuple((regs or {}).get(i, 0) for i in range(16))
        frame = Trapframe(regs=values, text=text, budget=budget)
        return self.call(msg.VmspaceCtl(lwp=lwp, seq=1, id=ID, cmd=1, frame=frame))


def frame_of(reply: msg.Reply) -> Trapframe:
    assert reply.frame is not None
    return reply.frame


def test_arithmetic_wraps_and_branches_jump() -> None:
    reply = Guest().run_user(
        li(1, U64), addi(1, 1, 4), li(2, 3), beq(1, 2, 5), li(3, 99), bne(1, 2, 4), addi(4, 1, -4),
        syscall(),
    )  # fmt: skip
    frame = frame_of(reply)

    assert (reply.errno, frame.trapno, frame.pc) == (0, T_SYSCALL, 8)
    assert frame.regs[1:5] == (3, 3, 0, U64)
    assert frame.text == ()


def test_loads_and_stores_go_through_the_guests_page_table() -> None:
    k = Guest({1: 10 << 12 | RW, 2: 11 << 12 | RW})
    k.put(10, 2, 1234)
    reply = k.run_user(li(1, PAGE), ld(2, 1, 16), li(3, 2 * PAGE), st(2, 3, 8), syscall())

    assert frame_of(reply).regs[2] == 1234
    assert k.word(11, 1) == 1234
    assert k.word(4, 1) & (VPTE_A | VPTE_M) == VPTE_A
    assert k.word(4, 2) & (VPTE_A | VPTE_M) == VPTE_A | VPTE_M


def test_the_first_write_after_a_read_faults_to_set_m() -> None:
    k = Guest({1: 10 << 12 | RW})
    reply = k.run_user(li(1, PAGE), ld(2, 1), st(1, 1), st(1, 1, 8), syscall())

    assert frame_of(reply).trapno == T_SYSCALL
    assert [event[3] for event in k.named("fault.begin")] == ["read", "write"]
    assert k.word(4, 1) & VPTE_M


@pytest.mark.parametrize(("there", "found"), [(5, 5), (6, 6)])
def test_cas_says_what_was_there(there: int, found: int) -> None:
    k = Guest({1: 10 << 12 | RW})
    k.put(10, 0, there)
    reply = k.run_user(li(1, PAGE), li(2, 5), li(3, 7), cas(2, 1, 3), syscall())

    assert frame_of(reply).regs[2] == found
    assert k.word(10) == (7 if there == 5 else there)


@pytest.mark.parametrize(
    ("insn", "err"), [(ld(2, 1, 8), 0), (st(2, 1, 8), PGEX_W), (cas(2, 1, 3, 8), PGEX_W),
                      (fetch(1, 8), PGEX_I)],
)  # fmt: skip
def test_an_unresolved_fault_leaves_with_its_address_and_repeats(insn: Insn, err: int) -> None:
    k = Guest()
    reply = k.run_user(li(1, PAGE), insn)
    frame = frame_of(reply)

    assert reply.errno == 0
    assert (frame.trapno, frame.addr, frame.err) == (T_PAGEFLT, PAGE + 8, err)
    assert frame.pc == 1
    assert k.lwp.vmspace is k.own


def test_read_only_and_no_execute_leave_too() -> None:
    k = Guest({1: 10 << 12 | R, 2: 11 << 12 | RW | VPTE_NX})

    assert frame_of(k.run_user(li(1, PAGE), ld(2, 1), st(2, 1))).err == PGEX_W
    assert frame_of(k.run_user(li(1, 2 * PAGE), ld(2, 1), fetch(1))).err == PGEX_I


def test_a_host_side_failure_is_a_page_fault_like_any_other() -> None:
    k = Guest({1: 1000 << 12 | RW})  # beyond the image

    assert frame_of(k.run_user(li(1, PAGE), ld(2, 1))).trapno == T_PAGEFLT


def test_other_traps() -> None:
    k = Guest()

    assert frame_of(k.run_user(li(1, 4), ld(2, 1))).trapno == T_ALIGNFLT
    assert frame_of(k.run_user(li(1, 4))).trapno == T_PRIVINFLT  # ran off its end
    for target in (1 << 40, -1, -2, U64):  # jumped out: the register holds it, the text does not
        frame = frame_of(k.run_user(Insn(Op.BEQ, imm=target), li(2, 9)))
        assert (frame.trapno, frame.pc, frame.regs[2]) == (T_PRIVINFLT, target & U64, 0)
    assert frame_of(k.run_user(li(1, 0xFFFF_8000_0000_0000), ld(2, 1))).trapno == T_PAGEFLT


def test_the_budget_ends_a_run_with_eintr() -> None:
    k = Guest()
    reply = k.run_user(addi(1, 1, 1), beq(0, 0, 0), budget=7)
    frame = frame_of(reply)

    assert reply.errno == Errno.EINTR
    assert (frame.trapno, frame.budget, frame.regs[1], frame.pc) == (0, 0, 4, 1)


def test_the_host_bounds_the_budget() -> None:
    k = Guest(run_budget=3)

    assert frame_of(k.run_user(beq(0, 0, 0))).budget == 0


def spinning(k: Guest) -> Thread:
    """lwp 0 runs an endless loop of loads, and is somewhere in it."""
    frame = Trapframe(text=(li(1, PAGE), ld(2, 1), beq(0, 0, 1)), budget=1 << 20)

    async def ask() -> None:
        request = msg.VmspaceCtl(lwp=0, seq=9, id=ID, cmd=1, frame=frame)
        await k.lwp.requests.send(request)

    k.do(ask())
    lwp = next(t for t in k.ex.threads.values() if t.name == "lwp vkernel.0")
    for _ in range(3):
        k.until(lwp, "mem.load")
    return lwp


def test_a_signal_ends_a_run_with_eintr_before_the_next_access() -> None:
    k = Guest({1: 10 << 12 | RW})
    lwp = spinning(k)
    reply = k.call(msg.Kill(lwp=1, seq=2, target=0, signo=SIGUSR1))
    assert reply.errno == 0
    loads = len(k.named("mem.load"))
    while not k.lwp.replies.queue:
        k.step(lwp)
    interrupted = k.lwp.replies.queue[0]

    assert interrupted.errno == Errno.EINTR
    assert interrupted.frame.trapno == 0
    assert len(k.named("mem.load")) - loads <= 1


def test_a_signal_before_run_is_delivered_before_run() -> None:
    """W38: its handler has run; what it asked for is not seen until the next trap."""
    k = Guest()
    k.call(msg.Kill(lwp=1, seq=1, target=0, signo=SIGUSR1))

    assert frame_of(k.run_user(syscall())).trapno == T_SYSCALL


def test_munmap_under_a_running_guest_is_a_page_fault_to_it() -> None:
    """W21."""
    k = Guest({1: 10 << 12 | RW})
    lwp = spinning(k)
    reply = k.call(msg.VmspaceMunmap(lwp=1, seq=2, id=ID, addr=0, length=1 << 40))
    assert reply.errno == 0
    while not k.lwp.replies.queue:
        k.step(lwp)

    assert k.lwp.replies.queue[0].frame.trapno == T_PAGEFLT


def test_each_lwp_runs_on_a_cpu_of_its_own() -> None:
    k = Guest({1: 10 << 12 | RW})
    k.run_user(li(1, PAGE), ld(2, 1), lwp=0)
    k.run_user(li(1, PAGE), ld(2, 1), lwp=1)

    assert [event[1] for event in k.named("mem.load")] == [0, 1]
