"""A real CPU: what runs on it reaches memory through its TLB and the pmap in %cr3.

An access that hits the TLB is one step; a miss adds one for the walk; a fault adds whatever
vm_fault takes. One thread at a time runs on a CPU; its fault worker and its IPI thread are the
interrupts of that thread.
"""

from __future__ import annotations

import weakref
from array import array
from types import coroutine
from typing import TYPE_CHECKING, Any

from vkprotocol.effects import Cell, Mailbox, Step, Thread

from vkhost.pc64.cpu_access import PAGE, Access, Write, modified, walk
from vkhost.pc64.cpuid import MXCSR_MASK
from vkhost.pc64.fxsave import long_pointers, short_pointers
from vkhost.pc64.nested_walk import GUEST_FAULT, VIOLATION, Root, Roots, walk_nested
from vkhost.pc64.tlb import Tlb
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_SUCCESS,
    VM_FAULT_BURST,
    VM_FAULT_DIRTY,
    VM_FAULT_USERMODE,
    VM_PROT_EXECUTE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)

if TYPE_CHECKING:
    from vkhost.kern.lwp import Lwp
    from vkhost.kernel import Kernel
    from vkhost.pc64.pmap import Pmap
    from vkhost.pc64.unicorn_cpu import UnicornCpu
    from vkhost.vm.vm_map import VmMap


class Fault(Exception):
    """vm_fault could not resolve the access: the thread gets a signal, or its guest a T_PAGEFLT."""

    def __init__(self, va: int, fault_type: int, result: int) -> None:
        super().__init__(f"fault at {va:#x}, type {fault_type}: {result}")
        self.va = va
        self.fault_type = fault_type
        self.result = result


def pfault_flags(fault_type: int) -> int:
    """pc64 trap.c:trap_pfault, of a user's access: a write fault dirties the page at once."""
    flags = VM_FAULT_USERMODE | VM_FAULT_BURST
    return flags | VM_FAULT_DIRTY if fault_type & VM_PROT_WRITE else flags


class FaultRequest:
    """What the trap handler asks of the fault worker."""

    __slots__ = ("fault_flags", "fault_type", "va", "vm_map", "write")

    def __init__(
        self, vm_map: VmMap, va: int, fault_type: int, fault_flags: int, write: Write | None
    ) -> None:
        self.vm_map = vm_map
        self.va = va
        self.fault_type = fault_type
        self.fault_flags = fault_flags
        self.write = write


class Cpu:
    """`lwp` is the thread running here, whose vmspace faults are resolved in. Thread-local."""

    def __init__(self, kernel: Kernel, cpuid: int) -> None:
        self.kernel = kernel
        self.id = cpuid
        self.mask = 1 << cpuid
        self.lwp: Lwp | None = None
        self.worker: Thread | None = None  # resolves its faults, if it has one
        self.tlb = Tlb(self)
        self.ipi = Mailbox(("ipi", cpuid))
        # The second stage that an EPT violation of this CPU is resolved in: a reference to it.
        self.violation = Cell(("violation", cpuid), None)
        self.faults = Mailbox(("faults", cpuid))
        self.fault_results = Mailbox(("fault_results", cpuid))
        self._loads: dict[int, Access] = {}
        self._stores: dict[int, Access] = {}
        self._unicorn: UnicornCpu | None = None
        self.rip = 0  # of the machine code it is in the middle of, or has left: for whoever asks
        self.runs = 0  # in its how many-th RUN

    @property
    def unicorn(self) -> UnicornCpu:
        """What executes machine code here, and the FPU; made when first needed."""
        if self._unicorn is None:
            from vkhost.pc64 import unicorn_cpu  # needs the extra

            self._unicorn = unicorn_cpu.take()
            weakref.finalize(self, unicorn_cpu.give_back, self._unicorn)
        return self._unicorn

    @property
    def cr3(self) -> Pmap | None:
        pmap: Pmap | None = self.tlb.root.state
        return pmap

    def __repr__(self) -> str:
        return f"<Cpu {self.id} on {self.cr3!r}>"

    # Accesses. The repetition is the hot path: a call saved in each is a tenth of its time.

    @coroutine
    def load(self, va: int) -> Step:
        """The word at va; raises Fault."""
        access = self._loads.get(va)
        if access is None:
            access = self._remember(self._loads, Access(self, va, "load", VM_PROT_READ))
        tlb = self.tlb
        while True:
            yield access
            slot = tlb.slots.get(va >> 12)
            if slot is not None and (entry := slot.state) is not None:
                idx = va >> 3 & 511
                value = entry.frame.words[idx]
                self.kernel.emit("mem.load", self.id, tlb.root.state.id, va, entry.pfn, idx, value)
                return value
            yield from self._miss(access)

    @coroutine
    def store(self, va: int, value: int) -> Step:
        access = self._stores.get(va)
        if access is None:
            access = self._remember(self._stores, Access(self, va, "store", VM_PROT_WRITE))
        tlb = self.tlb
        while True:
            yield access
            slot = tlb.slots.get(va >> 12)
            if slot is not None and (entry := slot.state) is not None and entry.writable:
                idx = va >> 3 & 511
                entry.frame.words[idx] = value
                self.kernel.emit("mem.store", self.id, tlb.root.state.id, va, entry.pfn, idx, value)
                return
            if (yield from self._miss(access, value)) is not None:
                return

    @coroutine
    def cmpset(self, va: int, old: int, new: int) -> Step:
        """lock cmpxchg: True iff the word was `old`. A write access in either case."""
        access = Access(self, va, "cmpset", VM_PROT_WRITE)
        while True:
            yield access
            slot = self.tlb.slots.get(va >> 12)
            if slot is not None and (entry := slot.state) is not None and entry.writable:
                idx = va >> 3 & 511
                words = entry.frame.words
                found = words[idx]
                if found == old:
                    words[idx] = new
                self.kernel.emit(
                    "mem.cmpset", self.id, self.tlb.root.state.id, va, entry.pfn, idx, new,
                    found == old, found,
                )  # fmt: skip
                return found == old
            emulated = yield from self._miss(access, (old, new))
            if emulated is not None:
                return emulated.result

    @coroutine
    def rmw(self, va: int, op: str, operand: int) -> Step:
        """A locked `swap`, `or` or `andn` of the word; the word before."""
        access = Access(self, va, op, VM_PROT_WRITE)
        while True:
            yield access
            slot = self.tlb.slots.get(va >> 12)
            if slot is not None and (entry := slot.state) is not None and entry.writable:
                idx = va >> 3 & 511
                old: int = entry.frame.words[idx]
                new = modified(op, old, operand)
                entry.frame.words[idx] = new
                pmap = self.tlb.root.state
                self.kernel.emit("mem.load", self.id, pmap.id, va, entry.pfn, idx, old)
                self.kernel.emit("mem.store", self.id, pmap.id, va, entry.pfn, idx, new)
                return old
            emulated = yield from self._miss(access, operand)
            if emulated is not None:
                return emulated.result

    @coroutine
    def swap(self, va: int, value: int) -> Step:
        return (yield from self.rmw(va, "swap", value))

    @coroutine
    def fetch(self, va: int) -> Step:
        """An instruction fetch: the word, under execute permission."""
        access = Access(self, va, "fetch", VM_PROT_EXECUTE)
        while True:
            yield access
            slot = self.tlb.slots.get(va >> 12)
            if slot is not None and (entry := slot.state) is not None and entry.executable:
                idx = va >> 3 & 511
                value = entry.frame.words[idx]
                pmap = self.tlb.root.state
                self.kernel.emit("mem.load", self.id, pmap.id, va, entry.pfn, idx, value)
                return value
            yield from self._miss(access)

    @coroutine
    def zero_page(self, va: int) -> Step:
        """bzero of a page, in one step."""
        frame = yield from self._page(va, "zero", VM_PROT_WRITE, bytes(4096))
        if frame is not None:
            frame.put_zeroes()
            self.kernel.emit("page.zero", frame.pfn)

    @coroutine
    def copy_page(self, dst: int, src: int) -> Step:
        """bcopy of a page: one step to read it, one to write it."""
        content = yield from self.take_page(src)
        frame = yield from self._page(dst, "copy to", VM_PROT_WRITE, content)
        if frame is not None:
            frame.put_bytes(content)
            self.kernel.emit("page.write", frame.pfn, content)

    @coroutine
    def take_page(self, va: int) -> Step:
        """The bytes of a page, in one step."""
        frame = yield from self._page(va, "copy from", VM_PROT_READ)
        return frame.words.tobytes()

    @coroutine
    def fill_page(self, va: int, content: bytes) -> Step:
        """copyout of a page, in one step."""
        frame = yield from self._page(va, "copyout", VM_PROT_WRITE, content)
        if frame is not None:
            frame.put_bytes(content)
            self.kernel.emit("page.write", frame.pfn, content)

    @coroutine
    def fxsave(self, va: int, rexw: bool) -> Step:
        """512 bytes of FPU state to `va`, in one page. Without REX.W the instruction and data
        pointers are cut to 32 bits, a selector beside each."""
        frame = yield from self._page(va, "fxsave", VM_PROT_WRITE)
        image = self.unicorn.fxsave()
        if not rexw:
            image = image[:8] + short_pointers(image) + image[24:]
        for n, word in enumerate(array("Q", image), va >> 3 & 511):
            frame.words[n] = word
            pmap = self.tlb.root.state
            at = va & ~4095 | n << 3
            self.kernel.emit("mem.store", self.id, pmap.id, at, frame.pfn, n, word)

    @coroutine
    def fxrstor(self, va: int, rexw: bool) -> Step:
        """FPU state from there. Bits of MXCSR that it does not have are a fault (#GP)."""
        frame = yield from self._page(va, "fxrstor", VM_PROT_READ)
        first = va >> 3 & 511
        image = frame.words[first : first + 64].tobytes()
        if not rexw:
            image = image[:8] + long_pointers(image) + image[24:]
        if int.from_bytes(image[24:28], "little") & ~MXCSR_MASK:
            raise Fault(va, VM_PROT_READ, KERN_FAILURE)
        self.unicorn.fxrstor(image)

    @coroutine
    def _page(self, va: int, op: str, fault_type: int, content: bytes = b"") -> Step:
        """The frame at va, in a step that may use all of it; emits the access to its first word.
        None: a fault has filled it with `content`."""
        access = Access(self, va, op, fault_type, PAGE)
        while True:
            yield access
            slot = self.tlb.slots.get(va >> 12)
            entry = None if slot is None else slot.state
            if entry is not None and (fault_type == VM_PROT_READ or entry.writable):
                pmap = self.tlb.root.state
                name = "mem.load" if fault_type == VM_PROT_READ else "mem.store"
                value = entry.frame.words[0] if fault_type == VM_PROT_READ else 0
                self.kernel.emit(name, self.id, pmap.id, va, entry.pfn, 0, value)
                return entry.frame
            if (yield from self._miss(access, content)) is not None:
                return None

    # Misses and faults.

    @coroutine
    def _miss(self, access: Access, operand: Any = None) -> Step:
        """Continues the step in which the TLB had nothing: walk, and fault if that fails.

        The access is then to be repeated; unless it was a write of `operand` and the fault has
        performed it, which is returned.
        """
        pmap = self.tlb.root.state
        va = access.va
        if pmap.roots is not None:
            root = pmap.roots.at(va)
            if root is not None and not access.fault_type & ~root.prot:
                yield from self._miss_nested(access, pmap.roots, root)
                return None
        slot = self.tlb.slot(pmap, va >> 12)
        if not walk(self, pmap, slot, va, access.fault_type):
            assert self.lwp is not None
            vm_map = self.lwp.vmspace.vm_map
            writes = access.fault_type == VM_PROT_WRITE
            write = Write(access, pmap, operand) if writes else None
            result = yield from self.take_fault(vm_map, va, access.fault_type, write)
            if result != KERN_SUCCESS:
                raise Fault(va, access.fault_type, result)
            if write is not None and write.done:
                return write
        return None

    @coroutine
    def _miss_nested(self, access: Access, roots: Roots, root: Root) -> Step:
        """The same where the CPU walks the guest's tables: the fault is the guest's, for what they
        forbid, or an EPT violation, which the host resolves in the second stage."""
        walked, at = yield from walk_nested(self, root, access.va, access.fault_type)
        if walked == GUEST_FAULT:
            raise Fault(access.va, access.fault_type, KERN_FAILURE)
        if walked == VIOLATION:
            result = yield from self.take_fault(root.ept.vm_map, at.gpa, at.needs)
            yield from self.violation.store(None)
            # With its entry gone, the access is to fault for that.
            if result != KERN_SUCCESS and root in (yield from roots.load()):
                raise Fault(access.va, access.fault_type, result)

    async def take_fault(
        self, vm_map: VmMap, va: int, fault_type: int, write: Write | None = None
    ) -> int:
        """pc64 trap.c:trap_pfault: flags as for a user access, and vm_fault."""
        flags = pfault_flags(fault_type)
        if not self.kernel.config.fault_workers:
            return await self.kernel.vm_fault(vm_map, va, fault_type, flags, write)
        await self.faults.send(FaultRequest(vm_map, va, fault_type, flags, write))
        result: int = await self.fault_results.recv()
        return result

    def forget_accesses(self) -> None:
        """Of who ran here: they are made anew."""
        self._loads.clear()
        self._stores.clear()

    def _remember(self, accesses: dict[int, Access], access: Access) -> Access:
        remembered_accesses = 1 << 16  # effects kept for reuse, per CPU
        if len(accesses) >= remembered_accesses:
            accesses.clear()
        accesses[access.va] = access
        return access
