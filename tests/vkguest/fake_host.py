"""A host without a VM: flat memory, and a VPTE walk at every single access.

Nothing is cached, so INVAL has nothing to do and no race of the host exists here: an independent
reference of what VPTEs mean, to run guests on and to compare the real host with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vkprotocol import messages as msg
from vkprotocol.effects import Effect, Mailbox, Shared, perform
from vkprotocol.errno import Errno
from vkprotocol.frame import TFRAME_WORDS, frame_from, tframe_of
from vkprotocol.insn import Insn, Mem, MemOp, Op, Trapframe
from vkprotocol.limits import U64
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP, MAP_VPAGETABLE
from vkprotocol.param import PAGE_SHIFT, PAGE_SIZE, VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import PGEX_I, PGEX_U, PGEX_W, T_PAGEFLT, T_SYSCALL
from vkprotocol.vpte import (
    VPTE_A,
    VPTE_M,
    VPTE_NX,
    VPTE_PAGE_MASK,
    VPTE_PS,
    VPTE_ROOT_SHIFT,
    VPTE_RW,
    VPTE_V,
    vpte_frame,
)

from vkguest.vkernel64.port import MailboxPort

WORDS = PAGE_SIZE // 8
FRAME_WORDS = range(TFRAME_WORDS)
FAULT_ERR = {"r": PGEX_U, "w": PGEX_U | PGEX_W, "x": PGEX_U | PGEX_I}


@dataclass
class Mapping:
    """One mmap: `root` is the master pde of a VPAGETABLE one, None of a linear one."""

    start: int
    end: int
    offset: int
    root: int | None


@dataclass
class FakeHost:
    """One process of it: the guest under test."""

    pages: int
    vpagetable: bool = True  # False: the mapping is refused, as by a kernel without the feature
    ram: list[int] = field(default_factory=list)
    space: list[Mapping] = field(default_factory=list)  # of the vkernel itself
    vmspaces: dict[int, list[Mapping]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    signalled: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ram = [0] * (self.pages * WORDS)
        # Every access is one step on this one object.
        self.bus = Effect(Shared(("fake", "ram")), "access", write=True)

    def port(self, lwp: int, spawn: Callable[..., object]) -> MailboxPort:
        """A port, and the host thread behind it."""
        requests, replies = Mailbox(("fake", lwp, "req")), Mailbox(("fake", lwp, "rep"))
        spawn(f"lwp{lwp}", self._serve(requests, replies), daemon=True)
        return MailboxPort(requests, replies)

    async def _serve(self, requests: Mailbox, replies: Mailbox) -> None:
        while True:
            request = await requests.recv()
            await replies.send(await self._answer(request))

    async def _answer(self, request: msg.AnyRequest) -> msg.Reply:
        name = type(request).__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        if isinstance(request, msg.CpuOps):
            values: list[int] = []
            for index, op in enumerate(request.ops):
                await perform(self.bus)
                value = self._op(op)
                if value is None:
                    return reply(request, errno=Errno.EFAULT, value=index, values=tuple(values))
                values.append(value)
            return reply(request, values=tuple(values))
        if isinstance(request, msg.VmspaceCtl):
            return await self._run(request)
        await perform(self.bus)
        return reply(request, errno=self._call(request))

    def _call(self, request: msg.AnyRequest) -> int:
        match request:
            case msg.VmspaceCreate():
                if request.id in self.vmspaces:
                    return Errno.EEXIST
                self.vmspaces[request.id] = []
            case msg.Mmap():
                return self._mmap(self.space, request)
            case msg.Mcontrol() | msg.Madvise():
                return self._mcontrol(self.space, request)
            case msg.Msync():
                return 0  # no page is anywhere but in memory
            case msg.Kill():
                if request.target in self.running:
                    self.signalled.add(request.target)
            case msg.Sysctl():
                return Errno.ENOENT
            case msg.VmspaceDestroy() | msg.VmspaceMmap() | msg.VmspaceMcontrol():
                return self._vmspace_call(request)
            case msg.Exit():
                pass
            case _:
                raise AssertionError(f"no vkernel says {request}")
        return 0

    def _vmspace_call(
        self, request: msg.VmspaceDestroy | msg.VmspaceMmap | msg.VmspaceMcontrol
    ) -> int:
        space = self.vmspaces.get(request.id)
        if space is None:
            return Errno.ENOENT
        if isinstance(request, msg.VmspaceMmap):
            return self._mmap(space, request)
        if isinstance(request, msg.VmspaceMcontrol):
            return self._mcontrol(space, request)
        del self.vmspaces[request.id]
        return 0

    def _mmap(self, space: list[Mapping], request: msg.Mmap | msg.VmspaceMmap) -> int:
        linear = not request.flags & MAP_VPAGETABLE
        if not linear and not self.vpagetable:
            return Errno.EINVAL
        end = request.addr + request.length
        assert all(m.end <= request.addr or end <= m.start for m in space)
        space.append(Mapping(request.addr, end, request.offset, None if linear else 0))
        return 0

    def _mcontrol(
        self, space: list[Mapping], request: msg.Mcontrol | msg.Madvise | msg.VmspaceMcontrol
    ) -> int:
        if request.addr + request.length > VM_MAX_USER_ADDRESS:
            return Errno.EINVAL
        if request.behav == MADV_INVAL:
            self.counts["inval"] = self.counts.get("inval", 0) + 1
        if request.behav == MADV_SETMAP:
            assert not isinstance(request, msg.Madvise)
            for mapping in space:
                if mapping.start == request.addr:
                    mapping.root = request.value
        return 0

    def translate(self, space: list[Mapping], va: int, kind: str) -> int | None:
        """The word index of `va` for an access of kind r, w or x; None for a fault.

        Sets A, and M for a write, on the way, also if it then fails further down.
        """
        mapping = next((m for m in space if m.start <= va < m.end), None)
        if mapping is None:
            return None
        index = (va - mapping.start + mapping.offset) >> PAGE_SHIFT
        frame = index
        if mapping.root is not None:
            walked = self._walk(mapping.root, index, kind)
            if walked is None:
                return None
            frame = walked
        if frame >= self.pages:
            return None
        return frame * WORDS + (va % PAGE_SIZE) // 8

    def _walk(self, vpte: int, index: int, kind: str) -> int | None:
        shift = VPTE_ROOT_SHIFT
        while True:
            if not vpte & VPTE_V:
                return None
            if kind == "w" and not vpte & VPTE_RW:
                return None
            if kind == "x" and vpte & VPTE_NX:
                return None
            if vpte & VPTE_PS or shift == 0:
                return vpte_frame(vpte) + (index & ((1 << shift) - 1))
            shift -= 9
            slot = vpte_frame(vpte) * WORDS + ((index >> shift) & VPTE_PAGE_MASK)
            vpte = self.ram[slot]
            if vpte & VPTE_V and kind == "w" and vpte & VPTE_RW:
                self.ram[slot] |= VPTE_A | VPTE_M
            elif vpte & VPTE_V and kind != "w":
                self.ram[slot] |= VPTE_A

    def _op(self, op: MemOp) -> int | None:
        kind = "r" if op.op is Mem.LOAD else "w"
        at = self.translate(self.space, op.va, kind)
        if at is None:
            return None
        old = self.ram[at]
        match op.op:
            case Mem.LOAD:
                return old
            case Mem.STORE:
                self.ram[at] = op.a
                return 0
            case Mem.CMPSET:
                if old == op.a:
                    self.ram[at] = op.b
                return int(old == op.a)
            case Mem.SWAP:
                self.ram[at] = op.a
            case Mem.OR:
                self.ram[at] |= op.a
            case Mem.ANDN:
                self.ram[at] &= ~op.a
            case Mem.ZERO:
                self.ram[at : at + WORDS] = [0] * WORDS
                return 0
            case Mem.COPY:
                source = self.translate(self.space, op.a, "r")
                if source is None:
                    return None
                self.ram[at : at + WORDS] = self.ram[source : source + WORDS]
                return 0
        return old

    async def _run(self, request: msg.VmspaceCtl) -> msg.Reply:
        if request.id not in self.vmspaces:
            return reply(request, errno=Errno.ENOENT)
        frame = self._frame_in(request)
        if frame is None:
            return reply(request, errno=Errno.EFAULT)
        regs, pc, budget = list(frame.regs), frame.pc, frame.budget
        await perform(self.bus)
        self.running.add(request.lwp)
        trapno = addr = err = errno = 0
        while not trapno:
            if request.lwp in self.signalled or budget == 0:
                self.signalled.discard(request.lwp)
                errno = Errno.EINTR
                break
            budget -= 1
            insn = frame.text[pc]
            pc += 1
            if insn.op in MEMORY:
                await perform(self.bus)
                fault = self._user(self.vmspaces[request.id], regs, insn)
                if fault is not None:
                    trapno, pc = T_PAGEFLT, pc - 1
                    addr, err = fault
            elif insn.op is Op.SYSCALL:
                trapno = T_SYSCALL
            else:
                pc = compute(regs, insn, pc)
        self.running.discard(request.lwp)
        out = Trapframe(pc=pc, regs=tuple(regs), trapno=trapno, addr=addr, err=err, budget=budget)
        if request.tframe is None:
            return reply(request, errno=errno, frame=out)
        return reply(request, errno=errno if self._frame_out(request.tframe, out) else Errno.EFAULT)

    def _frame_in(self, request: msg.VmspaceCtl) -> Trapframe | None:
        if request.frame is None or request.tframe is None:
            return request.frame
        places = [self.translate(self.space, request.tframe + 8 * n, "r") for n in FRAME_WORDS]
        words = [self.ram[at] for at in places if at is not None]
        missing = len(words) < len(places)
        return None if missing else frame_from(words, (0,), request.frame)

    def _frame_out(self, tframe: int, frame: Trapframe) -> bool:
        for n, word in enumerate(tframe_of(frame)):
            at = self.translate(self.space, tframe + 8 * n, "w")
            if at is None:
                return False
            self.ram[at] = word
        return True

    def _user(self, space: list[Mapping], regs: list[int], insn: Insn) -> tuple[int, int] | None:
        va = (regs[insn.rs] + insn.imm) & U64
        kind = {Op.LD: "r", Op.ST: "w", Op.CAS: "w", Op.FETCH: "x"}[insn.op]
        at = self.translate(space, va, kind)
        if at is None:
            return va, FAULT_ERR[kind]
        if insn.op is Op.LD:
            regs[insn.rd] = self.ram[at]
        elif insn.op is Op.ST:
            self.ram[at] = regs[insn.rt]
        elif insn.op is Op.CAS:
            expected, regs[insn.rd] = regs[insn.rd], self.ram[at]
            if self.ram[at] == expected:
                self.ram[at] = regs[insn.rt]
        return None


def reply(
    request: msg.Request,
    errno: int = 0,
    value: int = 0,
    values: tuple[int, ...] = (),
    frame: Trapframe | None = None,
) -> msg.Reply:
    return msg.Reply(
        lwp=request.lwp, seq=request.seq, errno=errno, value=value, values=values, frame=frame
    )


MEMORY = {Op.LD, Op.ST, Op.CAS, Op.FETCH}


def compute(regs: list[int], insn: Insn, pc: int) -> int:
    """An instruction that touches no memory; the next pc."""
    match insn.op:
        case Op.LI:
            regs[insn.rd] = insn.imm & U64
        case Op.ADDI:
            regs[insn.rd] = (regs[insn.rs] + insn.imm) & U64
        case Op.BNE if regs[insn.rs] != regs[insn.rt]:
            return insn.imm
        case Op.BEQ if regs[insn.rs] == regs[insn.rt]:
            return insn.imm
    return pc
