"""The machine of a litmus test: one host kernel, one guest with a few pages, set up and at rest.

The set-up makes kernel calls, the real ones, on a thread of its own that runs before any other
does; an execution of the test therefore begins with what those calls left behind. What the test
says is mapped has been faulted in, what it says is in a TLB has been accessed from that CPU.

Where CPUs walk the guest's tables themselves (policy `nested`) there is nothing for vm_fault to
enter: a fault of a test is then an access that its CPU makes for the guest process, as far as the
translation and no further (`translate`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import coroutine
from typing import Any

import msgspec
from vkprotocol.effects import CURTHREAD, Body, Cell, Lock, Spawn, Step, Thread
from vkprotocol.messages import MEMIMAGE_FD
from vkprotocol.mman import MADV_SETMAP
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkemu.books import Books
from vkemu.litmus.file import Litmus
from vkemu.litmus.statement import Statement
from vkemu.litmus.tables import MASTER_PDE
from vkemu.oracle.shadow import Shadow
from vkemu.verdict import UsageError
from vkhost.config import HostConfig
from vkhost.kern.lwp import File, Lwp, Proc
from vkhost.kernel import Emit, Kernel
from vkhost.pc64.cpu import Cpu, Fault, pfault_flags
from vkhost.pc64.cpu_access import Access, tlb_permits
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_switch import pmap_setlwpvm, swtch_in, swtch_out
from vkhost.pc64.tlb import INVLTLB
from vkhost.quirks import Quirks
from vkhost.rmap.nested import Nested
from vkhost.vm.vm import (
    KERN_SUCCESS,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_ALL,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map import vm_map_find
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_object import OBJT_DEFAULT, VmObject, vm_object_allocate, vm_object_reference
from vkhost.vm.vm_page import PAGE_WORDS, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_dirty
from vkhost.vm.vm_page_lru import vm_page_activate
from vkhost.vm.vmspace import Vmspace, vmspace_alloc, vmspace_rel
from vkhost.vm.vnode_pager import MemoryVnode, vnode_pager_alloc

DMAP = 0x100_0000_0000  # where the image is mapped linearly in the vkernel's own vmspace
OTHER = 0x2000_0000  # where the other process, the next owner of frames, maps what it gets
OTHER_PAGES = 8
PID = 100


class Blocked(Exception):
    """The set-up waits, and nobody is there to wait for."""


def drive(coro: Body) -> Any:
    """Run a coroutine alone, to its end: nobody else exists yet, so nothing can block it."""
    thread = Thread(-1, "setup", coro)
    before, CURTHREAD[0] = CURTHREAD[0], thread
    try:
        effect = coro.send(None)  # type: ignore[arg-type]
        while True:
            if effect.guard is not None and not effect.guard(effect.obj.state):
                raise Blocked(f"the set-up would block: {effect!r}")
            effect = coro.send(thread)
    except StopIteration as stop:
        return stop.value
    finally:
        CURTHREAD[0] = before


async def fault(lwp: Lwp | None, vmspace: Vmspace, va: int, kind: int) -> int:
    """vm_fault, or what takes its place; KERN_*."""
    if not vmspace.kernel.rmap.walks:
        return await vm_fault(vmspace.vm_map, va, kind, pfault_flags(kind))
    assert lwp is not None
    before = lwp.vmspace
    await pmap_setlwpvm(lwp, vmspace)
    try:
        await translate(lwp.cpu, va, kind)
        result = KERN_SUCCESS
    except Fault as failed:
        result = failed.result
    await pmap_setlwpvm(lwp, before)
    return result


@coroutine
def translate(cpu: Cpu, va: int, kind: int) -> Step:
    """An access that has not got to the memory yet; raises Fault."""
    access = Access(cpu, va, "translate", kind)
    while True:
        yield access
        slot = cpu.tlb.slots.get(va >> 12)
        if slot is not None and slot.state is not None and tlb_permits(slot.state, kind):
            return
        yield from cpu._miss(access)


class Machine:
    """`guest` is the vmspace of the guest's process, `own` that of the vkernel itself."""

    def __init__(self, litmus: Litmus, policy: str, spawn: Spawn, emit: Emit) -> None:
        file = litmus.file
        self.litmus = litmus
        config = msgspec.convert(msgspec.structs.asdict(file.host), HostConfig)
        tables = litmus.tables()
        if file.litmus.spare is not None:
            resident = len(tables.words) + sum(p.resident for p in file.page.values())
            config = msgspec.structs.replace(config, pages=resident + file.litmus.spare)
        quirks = msgspec.convert(msgspec.structs.asdict(file.quirks), Quirks)
        self.kernel = Kernel(config, policy, spawn, emit, quirks, frozenset(file.mutants))
        self.tables = tables
        self.vnode = MemoryVnode("image", litmus.image_pages * PAGE_SIZE)
        self.own = vmspace_alloc(self.kernel, "vkernel", pmap_id=PID)
        self.own.pmap.multi = True
        self.proc = Proc(self.kernel, PID, "vkernel", self.own)
        self.proc.files[MEMIMAGE_FD] = File(self.vnode)
        self.guest = vmspace_alloc(self.kernel, "guest", self.proc, pmap_id=PID + 1)
        other_pid = 200
        self.other = vmspace_alloc(self.kernel, "other", pmap_id=other_pid)
        self.proc_other = Proc(self.kernel, other_pid, "other", self.other)
        self.kernel.procs += [self.proc, self.proc_other]
        self.image: VmObject = drive(vnode_pager_alloc(self.kernel, self.vnode))
        self.other_lives = True
        self.other_object = vm_object_allocate(self.kernel, OBJT_DEFAULT, OTHER_PAGES)
        self.lwps: dict[int, Lwp] = {}  # by CPU
        self.children: list[Vmspace] = []  # of the guest process, as often as it has forked
        self.registers: dict[str, dict[str, int]] = {t.name: {} for t in litmus.threads}
        self.beginning: Statement | None = None  # of [[before]], which is said now
        self._events: dict[int, Cell] = {}
        self._locks: dict[int, Lock] = {}
        self._asts: dict[int, Cell] = {}
        self.kernel.vmmeter.counter_steps = file.litmus.counter_steps
        if self.kernel.rmap.walks:
            # Faults in a VPAGETABLE entry bring no neighbours along; nor do those in their place.
            self.kernel.vmmeter.tunables["prefault_pages"] = 0
        if isinstance(self.kernel.rmap, Nested):
            self.kernel.rmap.frees_tables = litmus.says("free_table")
        self.kernel.vmmeter.tunables.update(file.litmus.tunables)

    def set_up(self, run_before: Callable[[Machine], Body]) -> None:
        """UsageError when the test asks for what cannot be."""
        try:
            drive(self._set_up(run_before))
        except Blocked:
            said, pages = self.beginning, self.kernel.config.pages
            if said is not None:
                raise UsageError(
                    f"{said.where}: {said.text!r} waits and nobody else is there yet, expected it "
                    "in a thread"
                ) from None
            raise self._cannot("host.pages", pages, "more: the set-up waits for memory") from None

    async def _set_up(self, run_before: Callable[[Machine], Body]) -> None:
        image, other = self.image, self.other_object
        await self._map_guest()
        size = self.litmus.image_pages * PAGE_SIZE
        await self.map(self.own, image, DMAP, size, VM_MAPTYPE_NORMAL)
        await self.map(self.other, other, OTHER, OTHER_PAGES * PAGE_SIZE, VM_MAPTYPE_NORMAL)
        for pindex, words in self.tables.words.items():
            await self.make_resident(self.image, pindex, image_of(words), dirty=True)
        for name, page in self.litmus.file.page.items():
            pindex = self.litmus.frames[name]
            words = dict(enumerate(page.words))
            if page.resident:
                await self.make_resident(self.image, pindex, image_of(words), dirty=page.dirty)
            else:
                self.vnode.pwrite(pindex * PAGE_SIZE, image_of(words))
        if self.kernel.rmap.walks:
            await self._map_for_walks()
        await self._run_threads()
        await self._map_as_asked()
        await run_before(self)

    async def _map_guest(self) -> None:
        vm_map = self.guest.vm_map
        await self.map(self.guest, self.image, 0, VM_MAX_USER_ADDRESS, VM_MAPTYPE_VPAGETABLE)
        await vm_map_madvise(vm_map, 0, VM_MAX_USER_ADDRESS, MADV_SETMAP, MASTER_PDE)

    async def map(
        self,
        vmspace: Vmspace,
        obj: VmObject | None,
        start: int,
        size: int,
        maptype: int,
        pindex: int = 0,
        cow: int = 0,
    ) -> int:
        if obj is not None:
            await vm_object_reference(obj)
        result, _ = await vm_map_find(
            vmspace.vm_map, obj, pindex * PAGE_SIZE, start, size, PAGE_SIZE, False, maptype,
            VM_PROT_ALL, VM_PROT_ALL, cow,
        )  # fmt: skip
        return result

    async def make_resident(
        self, obj: VmObject, pindex: int, content: bytes, *, dirty: bool
    ) -> VmPage:
        """A page as the pager would have brought it in."""
        await obj.token.acquire()
        m = await vm_page_alloc(obj, pindex, VM_ALLOC_NORMAL)
        if m is None:
            raise self._cannot("host.pages", f"{self.kernel.config.pages}", "more: none is free")
        await m.frame.write_bytes(content)
        self.kernel.emit("page.write", m.pfn, content)
        m.valid = VM_PAGE_BITS_ALL
        if dirty:
            await vm_page_dirty(m)
        else:
            self.vnode.pwrite(pindex * PAGE_SIZE, content)
        await vm_page_activate(m)
        await vm_page_wakeup(m)
        await obj.token.release()
        return m

    async def _run_threads(self) -> None:
        """Put a thread of the vkernel on each CPU that a program of the test runs on."""
        for program in self.litmus.threads:
            if program.kind == "user" or (program.kind == "fault" and self.kernel.rmap.walks):
                await self._run_on(program.cpu, self.guest)
            elif program.kind == "guest":
                await self._run_on(program.cpu, self.own)
                await self._warm_dmap(self.kernel.cpus[program.cpu])
        for address in self.litmus.file.va.values():
            for i in address.tlb:
                await self._run_on(i, self.guest)

    async def _run_on(self, i: int, vmspace: Vmspace) -> None:
        if i not in self.lwps:
            lwp = self.lwps[i] = Lwp(self.proc, i, self.kernel.cpus[i])
            lwp.vmspace = vmspace
            self.proc.lwps.append(lwp)
            self.kernel.emit("lwp.create", PID, lwp.id)
            await swtch_in(lwp)

    async def _warm_dmap(self, cpu: Cpu) -> None:
        """The vkernel has its page tables and DMAP pages in the TLB: it has been using them."""
        for pindex in self.tables.words:
            await self._touch(cpu, pindex, "rw")
        for name, page in self.litmus.file.page.items():
            if page.dmap:
                await self._touch(cpu, self.litmus.frames[name], page.dmap)

    async def _touch(self, cpu: Cpu, pindex: int, how: str) -> None:
        va = DMAP + pindex * PAGE_SIZE
        value = await cpu.load(va)
        if how == "rw":
            await cpu.store(va, value)

    async def _map_for_walks(self) -> None:
        """The guest has been running: its tables are in the second stage. So are the pages that are
        mapped; none of it is in a TLB."""
        vm_map = self.guest.vm_map
        assert await vm_fault(vm_map, 0, VM_PROT_READ) == KERN_SUCCESS
        assert vm_map.pmap.roots is not None
        (root,) = vm_map.pmap.roots.state
        ept = root.ept
        for pindex in self.tables.words:
            gpa, kind = pindex * PAGE_SIZE, VM_PROT_WRITE
            assert await vm_fault(ept.vm_map, gpa, kind, pfault_flags(kind)) == KERN_SUCCESS
        self.kernel.bind(-1, self.kernel.cpus[0])
        first = Lwp(self.proc, -1, self.kernel.cpus[0])
        first.vmspace = self.guest
        await swtch_in(first)
        for address in self.litmus.file.va.values():
            if address.mapped:
                kind = VM_PROT_WRITE if address.mapped == "rw" else VM_PROT_READ
                await translate(first.cpu, address.va, kind)
        await swtch_out(first)
        await first.cpu.tlb.flush(self.guest.pmap, INVLTLB)

    async def _map_as_asked(self) -> None:
        for name, address in self.litmus.file.va.items():
            if address.mapped and not self.kernel.rmap.walks:
                kind = VM_PROT_WRITE if address.mapped == "rw" else VM_PROT_READ
                result = await vm_fault(self.guest.vm_map, address.va, kind, pfault_flags(kind))
                if result != KERN_SUCCESS:
                    raise self._cannot(f"va.{name}.mapped", address.mapped, "what a fault may map")
            for i in address.tlb:
                self.kernel.bind(-1, self.kernel.cpus[i])
                try:
                    if address.written is None:
                        await self.kernel.cpus[i].load(address.va)
                    else:
                        await self.kernel.cpus[i].store(address.va, address.written)
                except Fault:
                    raise self._cannot(f"va.{name}.tlb", i, "an access that may be made") from None
        for name, page in self.litmus.file.page.items():
            if not page.dmap and page.resident:
                va = DMAP + self.litmus.frames[name] * PAGE_SIZE
                await pmap_remove(self.own.pmap, va, va + PAGE_SIZE)

    def _cannot(self, key: str, value: object, expected: str) -> UsageError:
        """The set-up asks for what this policy, or so small a host, does not have."""
        return UsageError(
            f"{self.litmus.where}:{key}: {value}, expected {expected} (policy {self.kernel.policy})"
        )

    async def map_page(self, va: int, pindex: int) -> int:
        """A NORMAL entry in the guest's address space that shows one page of the image; KERN_*."""
        vm_map = self.guest.vm_map
        await vm_map_remove(vm_map, va, va + PAGE_SIZE)
        kind = VM_MAPTYPE_NORMAL
        return await self.map(self.guest, self.image, va, PAGE_SIZE, kind, pindex)

    async def respawn(self) -> None:
        """Another process in place of the guest's, on the same page tables and the same pmap."""
        await vmspace_rel(self.guest)
        self.guest = vmspace_alloc(self.kernel, "guest", self.proc, pmap_id=PID + 1)
        await self._map_guest()

    def books(self, shadow: Shadow) -> Books:
        """The test itself has a reference to each of its objects, and address spaces that are no
        process's."""
        held: dict[int | str, int] = {self.image.id: 1, self.other_object.id: 1}
        spaces = [space.vm_map for space in (self.guest, *self.children)]
        return Books(self.kernel, shadow, spaces, held)

    def look(self) -> None:
        """Make what is otherwise made by whoever looks at it first: once and not in each execution
        of a machine that is put back."""
        look_at(self.kernel)

    def event(self, n: int) -> Cell:
        return self._events.setdefault(n, Cell(("litmus.event", n)))

    def guest_lock(self, n: int) -> Lock:
        return self._locks.setdefault(n, Lock(("guest.lock", n)))

    def ast(self, cpu: int) -> Cell:
        """RQF_AST_MASK of a virtual CPU."""
        return self._asts.setdefault(cpu, Cell(("guest.ast", cpu)))

    def pindex(self, page: str | int) -> int:
        return page if isinstance(page, int) else self.litmus.frames[page]

    def page(self, page: str | int) -> VmPage | None:
        """The vm_page that holds a page of the image now."""
        return self.image.memq.get(self.pindex(page))

    def value(self, atom: str) -> int | None:
        """What `A.r0` or `X[0]` is in the state at hand; None for a register never written."""
        head, dot, register = atom.partition(".")
        if dot:
            return self.registers[head].get(register)
        name, _, index = atom.partition("[")
        return self._word(self.litmus.frames[name], int(index.rstrip("]")))

    def _word(self, pindex: int, idx: int) -> int:
        """A word of the image: of the resident page, else of the file."""
        m = self.image.memq.get(pindex)
        if m is not None and m.valid:
            return m.frame.words[idx]
        return int.from_bytes(self.vnode.pread(pindex * PAGE_SIZE + idx * 8, 8), "little")

    def content(self, pindex: int) -> bytes:
        """A page of the image: the resident one, else of the file."""
        m = self.image.memq.get(pindex)
        if m is not None and m.valid:
            return m.frame.words.tobytes()
        return self.vnode.pread(pindex * PAGE_SIZE, PAGE_SIZE)


def look_at(kernel: Kernel) -> None:
    for m in kernel.pages.values():
        for word in PAGE_WORDS:
            getattr(m, word)


def image_of(words: dict[int, int]) -> bytes:
    """A page whose words are 0 but for these."""
    page = bytearray(PAGE_SIZE)
    for idx, word in words.items():
        page[idx * 8 : idx * 8 + 8] = word.to_bytes(8, "little")
    return bytes(page)
