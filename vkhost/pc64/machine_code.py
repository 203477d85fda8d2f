"""User code that is x86-64 machine code in guest memory, executed by unicorn_cpu.py.

A step is one instruction: its fetch, its loads and stores, the signals that are looked at before
it. What it touches is known by executing it on copies (`footprint`), so that the step is announced
as any access is. Where the TLB has nothing the step is the hardware's walk, as for `Cpu.load`, and
the instruction starts again when that, or the fault, is over. An instruction that loads and stores
and is not locked takes two steps; the caches of a real one let others in between, too.

With `user_insns` a step holds more: instructions that touch registers only, behind the first; with
`merge_accesses` whatever comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import coroutine
from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Also, Effect, Shared, Step
from vkprotocol.insn import SYSCALL_BYTES, Machine, Trapframe
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vkernel import (
    T_ARITHTRAP,
    T_BPTFLT,
    T_DIVIDE,
    T_DNA,
    T_FAST_SYSCALL,
    T_PAGEFLT,
    T_PRIVINFLT,
    T_PROTFLT,
    T_XMMFLT,
)

from vkhost.kern.lwp import Lwp
from vkhost.pc64 import unicorn_cpu
from vkhost.pc64.cpu import Fault
from vkhost.pc64.cpu_access import Access
from vkhost.pc64.slots import Touch
from vkhost.pc64.unicorn_cpu import RDTSC, UnicornCpu
from vkhost.pc64.user_code import Interrupted, Trap, pgex
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_WRITE

if TYPE_CHECKING:
    from vkhost.pc64.tlb import TlbEntry

RCX, R11 = 1, 11
LOCK: Final = 0xF0
PREFIXES: Final = frozenset(bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3"))

# From the vector of an exception to DragonFly's trap number; x86_64 trap.h. A system call by
# int 0x80 is none there any more.
TRAPNO: Final = {
    unicorn_cpu.DIVIDE: T_DIVIDE,
    unicorn_cpu.BREAKPOINT: T_BPTFLT,
    unicorn_cpu.INVALID: T_PRIVINFLT,
    unicorn_cpu.NO_FPU: T_DNA,
    unicorn_cpu.PROTECTION: T_PROTFLT,
    unicorn_cpu.X87: T_ARITHTRAP,
    unicorn_cpu.SIMD: T_XMMFLT,
}
Word = tuple["TlbEntry", int, int, int]  # entry, va, idx, size or new value


class Execute(Effect):
    """The next instruction. The footprint beyond %cr3 is what executing it now would touch."""

    __slots__ = ("code",)

    def __init__(self, code: MachineCode) -> None:
        self.obj = code.lwp.cpu.tlb.root
        self.op = "execute"
        self.write = False
        self.guard = None
        self.deadline = None
        self.code = code

    def __repr__(self) -> str:
        return f"<execute cpu{self.code.lwp.cpu.id} {self.code.unicorn.rip:#x}>"

    @property
    def also(self) -> Also:  # type: ignore[override]
        return self.code.footprint()


class Store(Effect):
    """The stores of an instruction whose loads are done."""

    __slots__ = ("code",)

    def __init__(self, code: MachineCode) -> None:
        self.obj = code.lwp.cpu.tlb.root
        self.op = "store"
        self.write = False
        self.guard = None
        self.deadline = None
        self.code = code

    @property
    def also(self) -> Also:  # type: ignore[override]
        return _footprint_of(self.code, loads=False)


class MachineCode:
    """One RUN of machine code. The registers are those of the CPU's unicorn meanwhile."""

    __slots__ = ("budget", "exact", "execute", "lwp", "store", "unicorn")

    def __init__(self, lwp: Lwp, frame: Trapframe, budget: int) -> None:
        machine = frame.machine
        assert machine is not None
        self.lwp = lwp
        self.budget = min(frame.budget, budget)
        self.exact = not lwp.proc.kernel.config.merge_accesses
        self.unicorn: UnicornCpu = lwp.cpu.unicorn
        self.unicorn.load(frame.regs, machine.rip, machine.rflags, machine.fsbase, machine.fpfault)
        self.execute = Execute(self)
        self.store = Store(self)
        lwp.cpu.runs += 1
        lwp.cpu.rip = machine.rip

    def frame(self, trap: Trap | None) -> Trapframe:
        *regs, rip, rflags, fsbase = self.unicorn.registers()
        trapno, addr, err = (0, 0, 0) if trap is None else (trap.trapno, trap.addr, trap.err)
        if trapno == T_FAST_SYSCALL:  # as the instruction leaves them
            regs[RCX], regs[R11] = rip, rflags
        return Trapframe(
            regs=tuple(regs), budget=self.budget, trapno=trapno, addr=addr, err=err,
            machine=Machine(rip=rip, rflags=rflags, fsbase=fsbase),
        )  # fmt: skip

    async def step(self, lwp: Lwp) -> None:
        await self._step()

    # One step.

    def _run(self, count: int) -> None:
        """Execute on copies: as much as belongs to one step. The registers before are saved."""
        unicorn, tlb = self.unicorn, self.lwp.cpu.tlb
        unicorn.save()
        unicorn.run(tlb, count if not self.exact else 1, exact=self.exact)
        if unicorn.alone and not unicorn.executed:
            unicorn.rollback()
            unicorn.run(tlb, 1, exact=self.exact)
        unicorn.settle(tlb, 0, exact=self.exact)

    @coroutine
    def _step(self) -> Step:
        yield self.execute
        kernel = self.lwp.proc.kernel
        if self.lwp.signals.state or not self.budget:
            raise Interrupted
        unicorn = self.unicorn
        self._run(min(self.budget, kernel.config.user_insns))
        if not unicorn.executed:
            yield from self._stopped()
            return
        if self.exact:
            rip = next(iter(unicorn.touched.values())).rip
            words = list(self._words())
            split = _splits(unicorn, rip)
            self._emit_insn(rip, 1)
            self._emit_fetch()
            for entry, va, idx, _ in (w for store, w in words if not store):
                self._emit("mem.load", entry, va, idx)
            if split and not (yield from self._still()):
                unicorn.rollback()
                return
            for _, (entry, va, idx, value) in (w for w in words if w[0]):
                self._put(entry, va, idx, value)
        else:
            self._merged()
        self.budget -= unicorn.executed
        ended = unicorn.exception is not None or unicorn.syscall
        if self.exact and not ended and kernel.config.user_insns > 1 and self.budget:
            self._registers_only(min(self.budget, kernel.config.user_insns - 1))
            self._emit_fetch()
            self.budget -= unicorn.executed
        if unicorn.syscall:
            self.lwp.cpu.rip = unicorn.rip - SYSCALL_BYTES
            raise Trap(T_FAST_SYSCALL)
        if unicorn.exception is not None:
            self.lwp.cpu.rip = unicorn.rip
            raise _trap(unicorn.exception)

    def _registers_only(self, count: int) -> None:
        """What follows and touches no memory belongs to the step."""
        unicorn, tlb = self.unicorn, self.lwp.cpu.tlb
        unicorn.save(1)
        unicorn.run(tlb, count, exact=True, data=False)
        unicorn.settle(tlb, 1, exact=True, data=False)

    @coroutine
    def _stopped(self) -> Step:
        """Nothing was executed: what the first instruction needs, or does not get."""
        unicorn = self.unicorn
        if unicorn.missing is None:
            assert unicorn.exception is not None
            if not self._emulated(unicorn.exception):
                raise _trap(unicorn.exception)
            return
        va, kind = unicorn.missing
        unicorn.rollback()
        self.lwp.cpu.rip = unicorn.rip
        try:
            yield from self.lwp.cpu._miss(Access(self.lwp.cpu, va, "execute", kind))
        except Fault as fault:
            raise Trap(T_PAGEFLT, fault.va, pgex(fault.fault_type)) from None

    def _emulated(self, vector: int) -> bool:
        """rdtsc traps for us alone: it is answered by the virtual clock."""
        unicorn = self.unicorn
        rdtsc = vector == unicorn_cpu.PROTECTION and unicorn.text_at(unicorn.rip, 2) == RDTSC
        if rdtsc:
            unicorn.rdtsc()
            self.budget -= 1
        return rdtsc

    # What a step has touched.

    def _words(self) -> Iterable[tuple[bool, Word]]:
        """(is a store, (entry, va, idx, new value)) of every word accessed, in order."""
        unicorn = self.unicorn
        slots = {touch.slot: touch for (_, text), touch in unicorn.touched.items() if not text}
        new: dict[tuple[int, int], int] = {}
        for store, at, size, value in unicorn.accesses:
            offset = at % PAGE_SIZE
            for n in range(offset >> 3, (offset + size + 7) >> 3):
                touch, idx = slots[at // PAGE_SIZE], n
                if n > 511:  # an access over two pages is told as one
                    touch, idx = unicorn.touched[touch.vpn + 1, False], n - 512
                word = new.get((touch.vpn, idx), touch.entry.frame.words[idx])
                if store:
                    word = _with_bytes(word, offset - 8 * n, size, value)
                    new[touch.vpn, idx] = word
                yield store, (touch.entry, touch.vpn << 12 | idx << 3, idx, word)

    @coroutine
    def _still(self) -> Step:
        """Before the stores of an instruction others may come; False: the translation went."""
        tlb = self.lwp.cpu.tlb
        yield self.store
        for (vpn, text), touch in self.unicorn.touched.items():
            slot = tlb.slots.get(vpn)
            if not text and (slot is None or slot.state is not touch.entry):
                return False
        return True

    def _put(self, entry: TlbEntry, va: int, idx: int, value: int) -> None:
        entry.frame.words[idx] = value
        self._emit("mem.store", entry, va, idx)

    def _merged(self) -> None:
        """A load of each page, then a store of each word that is not what it was."""
        unicorn = self.unicorn
        self._emit_insn(next(iter(unicorn.touched.values())).rip, unicorn.executed)
        cpu = self.lwp.cpu
        for touch in unicorn.touched.values():
            cpu.rip = touch.rip
            if touch.kind == VM_PROT_EXECUTE:
                idx = touch.rip >> 3 & 511
                self._emit("mem.load", touch.entry, touch.vpn << 12 | idx << 3, idx)
            elif touch.kind != VM_PROT_WRITE:
                self._emit("mem.load", touch.entry, touch.vpn << 12, 0)
        for touch in unicorn.touched.values():
            if touch.kind == VM_PROT_WRITE:
                cpu.rip = touch.rip
                changed = dict(_changed(touch.before, unicorn.slots.page(touch.slot)))
                for idx, value in (changed or {0: touch.entry.frame.words[0]}).items():
                    self._put(touch.entry, touch.vpn << 12 | idx << 3, idx, value)

    def _emit_fetch(self) -> None:
        for (_, text), touch in self.unicorn.touched.items():
            if text:
                idx = touch.rip >> 3 & 511 if touch.rip >> 12 == touch.vpn else 0
                self._emit("mem.load", touch.entry, touch.vpn << 12 | idx << 3, idx)

    def _emit(self, name: str, entry: TlbEntry, va: int, idx: int) -> None:
        cpu = self.lwp.cpu
        pmap = cpu.tlb.root.state
        cpu.kernel.emit(name, cpu.id, pmap.id, va, entry.pfn, idx, entry.frame.words[idx])

    def _emit_insn(self, rip: int, count: int) -> None:
        self.lwp.cpu.rip = rip
        self.lwp.proc.kernel.emit("user.insns", self.lwp.id, rip, count)

    # Announcing.

    def footprint(self) -> Also:
        """Of a step taken now, by executing it and taking it back."""
        unicorn = self.unicorn
        kernel = self.lwp.proc.kernel
        signals = ((self.lwp.signals, False),)
        if self.lwp.signals.state or not self.budget:
            return signals
        self._run(min(self.budget, kernel.config.user_insns))
        found = _footprint_of(self, loads=True)
        executed, ended = unicorn.executed, unicorn.syscall or unicorn.exception is not None
        if executed and self.exact and not ended and kernel.config.user_insns > 1:
            self._registers_only(min(self.budget, kernel.config.user_insns - 1))
            found += _footprint_of(self, loads=True)
        if unicorn.missing is not None:
            va, kind = unicorn.missing
            also = Access(self.lwp.cpu, va, "execute", kind).also
            found += ((also[0][0], False),) if executed else also
        unicorn.rollback()
        return signals + found


def _trap(vector: int) -> Trap:
    return Trap(TRAPNO.get(vector, T_PROTFLT))


def _footprint_of(code: MachineCode, *, loads: bool) -> Also:
    """Slots and words. Of an instruction that is split: its stores if not `loads`, else the rest.
    A page of which it is not known what is used counts as written, all of it."""
    unicorn = code.unicorn
    found: dict[Shared, bool] = {}
    tlb = code.lwp.cpu.tlb
    for (vpn, text), touch in unicorn.touched.items():
        slot = tlb.slots.get(vpn)
        if slot is not None:
            found[slot] = False
        frame = touch.entry.frame
        if not code.exact:
            found[frame.bulk] = True
        elif text and loads:
            found.setdefault(frame.bulk, False)
            for idx in _fetched(touch):
                found.setdefault(frame.word(idx), False)
    if code.exact and unicorn.executed:
        rip = next(iter(unicorn.touched.values())).rip if unicorn.touched else 0
        split = _splits(unicorn, rip)
        for store, (entry, _, idx, _) in code._words():
            if store and split is loads:
                continue
            if not store and not loads:
                continue
            word = entry.frame.word(idx)
            found.setdefault(entry.frame.bulk, False)
            found[word] = found.get(word, False) or store
    return tuple(found.items())


def _fetched(touch: Touch) -> range:
    """The words of its page that an instruction at rip may be read from."""
    first = touch.rip & 4095 if touch.rip >> 12 == touch.vpn else 0
    insn_bytes = 15  # the longest instruction
    return range(first >> 3, (min(first + insn_bytes, PAGE_SIZE) + 7) >> 3)


def _splits(unicorn: UnicornCpu, rip: int) -> bool:
    """Does the instruction load and store, without a lock?"""
    kinds = {store for store, _, _, _ in unicorn.accesses}
    return len(kinds) == 2 and not locked(unicorn.text_at(rip))


def locked(code: bytes) -> bool:
    """A LOCK prefix, or xchg with memory, which needs none."""
    xchg = (0x86, 0x87)  # locked by itself
    for at, byte in enumerate(code):
        if byte == LOCK:
            return True
        if byte not in PREFIXES:
            opcode = code[at + 1 : at + 2] if 0x40 <= byte <= 0x4F else code[at : at + 1]
            return bool(opcode) and opcode[0] in xchg
    return False


def _with_bytes(word: int, offset: int, size: int, value: int) -> int:
    """The word with those of the `size` bytes of `value` in it that begin at byte `offset`, which
    may be before it."""
    mask = (1 << 8 * size) - 1
    if offset >= 0:
        mask, value = mask << 8 * offset, value << 8 * offset
    else:
        mask, value = mask >> -8 * offset, value >> -8 * offset
    mask &= unicorn_cpu.U64
    return word & ~mask | value & mask


def _changed(before: bytes, after: bytes, at: int = 0) -> Iterable[tuple[int, int]]:
    """(idx, new value) of the words that differ, by bisection: mostly few do."""
    if before == after:
        return
    if len(after) == 8:
        yield at, int.from_bytes(after, "little")
        return
    half = len(after) // 2
    yield from _changed(before[:half], after[:half], at)
    yield from _changed(before[half:], after[half:], at + half // 8)
