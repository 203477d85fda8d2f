"""exec of an ELF image: a new address space, and what the program finds on its stack.

DragonFly `kern/kern_exec.c`, `kern/imgact_elf.c`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from vkprotocol.effects import Cell
from vkprotocol.errno import Errno
from vkprotocol.insn import Machine
from vkprotocol.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS, round_page, trunc_page

from vkguest.kern.imgact_elf import ElfImage
from vkguest.kern.kern_descrip import PATH_MAX, console_files
from vkguest.kern.kern_exit import ppwait_channel
from vkguest.kern.kern_ktrace import ktrelf
from vkguest.kern.kern_sig import SIGCODE
from vkguest.kern.proc import FRESH_REGS, Lwp, Proc
from vkguest.vkernel64.copyio import copyin, copyinstr, copyout
from vkguest.vkernel64.md import RDI, RSP, LwpMd, ProcMd, Sigaction, Sigstk
from vkguest.vkernel64.npx import npxreset
from vkguest.vm.vm_map import INHERIT_COPY, VmMap, VmMapEntry, vm_map_insert
from vkguest.vm.vm_object import VmObject, vm_object_reference
from vkguest.vm.vmspace import Vmspace, vmspace_alloc, vmspace_terminate

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

RW: Final = PROT_READ | PROT_WRITE
RWX: Final = RW | PROT_EXEC
USRSTACK: Final = VM_MAX_USER_ADDRESS
STACK_BYTES: Final = 64 * PAGE_SIZE
SIGCODE_ADDRESS: Final = USRSTACK - 64  # where the real one has PS_STRINGS and, below it, this
ARG_MAX: Final = 2 * PAGE_SIZE
AT_NULL, AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_ENTRY = 0, 3, 4, 5, 6, 9


Piece: TypeAlias = tuple[int, int, int, bytes]  # of memory: start, end, prot, content


async def exec_elf(
    gd: GlobalData, image: ElfImage, argv: Sequence[bytes], envp: Sequence[bytes]
) -> tuple[Vmspace, int, list[Piece]]:
    """The address space, the stack pointer, and what is there. Raises VmWait, with nothing done."""
    vm = await vmspace_alloc(gd)
    try:
        await vm.vm_map.lock.acquire_exclusive()
        await _map_segments(gd, vm.vm_map, image)
        stack = VmMapEntry(USRSTACK - STACK_BYTES, USRSTACK, VmObject(), 0, RWX, RWX, INHERIT_COPY)
        vm_map_insert(vm.vm_map, stack)
        await vm.vm_map.lock.release()
        rsp, content = _stack(image, argv, envp)
        copied = await copyout(gd, vm.vm_map, rsp, content)
        assert copied, "the stack is there"
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            await vmspace_terminate(gd, vm)
        raise
    below = trunc_page(rsp)
    pieces = [
        (segment.start, round_page(segment.end), segment.prot, segment.content)
        for segment in image.segments
    ]
    pieces.append((USRSTACK - STACK_BYTES, below, RWX, b""))
    pieces.append((below, USRSTACK, RWX, bytes(rsp - below) + content))
    return vm, rsp, pieces


async def _map_segments(gd: GlobalData, vm_map: VmMap, image: ElfImage) -> None:
    """The file's pages are shared by all who run it until they write; bss is zeroes."""
    for segment, vnode in zip(image.segments, gd.kernel.disk.text[image.name], strict=True):
        middle = segment.start + len(segment.content)
        if segment.content:
            await vm_object_reference(vnode.object)
            vm_map_insert(
                vm_map,
                VmMapEntry(
                    segment.start, middle, vnode.object, 0, segment.prot, RWX, INHERIT_COPY,
                    needs_copy=True,
                ),
            )  # fmt: skip
        if middle < segment.end:
            bss = VmMapEntry(middle, segment.end, VmObject(), 0, segment.prot, RWX, INHERIT_COPY)
            vm_map_insert(vm_map, bss)


def _stack(image: ElfImage, argv: Sequence[bytes], envp: Sequence[bytes]) -> tuple[int, bytes]:
    """exec_copyout_strings, elf_fixup: argc, argv, envp and auxv; the strings; the signal
    trampoline. (rsp, what is from there to the top)."""
    strings = b"".join(string + b"\0" for string in (*argv, *envp))
    base = (SIGCODE_ADDRESS - len(strings)) & ~0xF
    pointers: list[list[int]] = [[], []]
    at = base
    for which, group in enumerate((argv, envp)):
        for string in group:
            pointers[which].append(at)
            at += len(string) + 1
    phent = 56
    auxv = (
        AT_PHDR, image.phdr, AT_PHENT, phent, AT_PHNUM, image.phnum, AT_PAGESZ, PAGE_SIZE,
        AT_ENTRY, image.entry, AT_NULL, 0,
    )  # fmt: skip
    words = (len(argv), *pointers[0], 0, *pointers[1], 0, *auxv)
    rsp = (base - 8 * len(words)) & ~0xF
    content = struct.pack(f"<{len(words)}Q", *words).ljust(base - rsp, b"\0") + strings
    content = content.ljust(SIGCODE_ADDRESS - rsp, b"\0") + SIGCODE
    return rsp, content


def fresh_machine(image: ElfImage) -> Machine:
    return Machine(rip=image.entry)


def fresh_regs(rsp: int) -> tuple[int, ...]:
    """cpu_regs.c:exec_setregs: rdi is where argc is."""
    regs = list(FRESH_REGS)
    regs[RSP] = regs[RDI] = rsp
    return tuple(regs)


def lwp_md(gd: GlobalData, proc: Proc, tid: int, machine: Machine) -> LwpMd:
    return LwpMd(machine, Cell((gd.kernel.name, "lwp", proc.pid, tid, "siglist"), ()))


async def exec_first(gd: GlobalData, pid: int, image: ElfImage, args: Sequence[str]) -> Proc:
    """init_main.c: a process out of nothing. Raises VmWait."""
    vm, rsp, pieces = await exec_elf(gd, image, [arg.encode() for arg in args], [])
    md = ProcMd(image.brk, image.brk, console_files())
    proc = Proc(gd.kernel.name, pid, None, vm, image, md)
    proc.lwps[0] = Lwp(proc, 0, 0, fresh_regs(rsp), lwp_md(gd, proc, 0, fresh_machine(image)))
    told(gd, proc)
    ktrelf(gd, pid, pieces)
    return proc


def told(gd: GlobalData, proc: Proc) -> None:
    """Which program is in which vmspace from now on."""
    kernel = gd.kernel
    kernel.emit("guest.exec", kernel.proc, proc.pid, proc.vmspace.pmap.id, proc.program.name)


async def sys_execve(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """execve(path, argv, envp): an executable of the disk, by name."""
    proc, md = lp.proc, lp.md
    assert md is not None
    assert proc.md is not None
    async with gd.kernel.proc_token:
        alone = len(proc.lwps) == 1
    if not alone:
        return -Errno.EINVAL
    vm_map = proc.vmspace.vm_map
    path = await copyinstr(gd, vm_map, args[0], PATH_MAX)
    argv = await _strings(gd, vm_map, args[1])
    envp = await _strings(gd, vm_map, args[2])
    if path is None or argv is None or envp is None:
        return -Errno.EFAULT
    image = gd.kernel.disk.images.get(path.decode(errors="replace"))
    if image is None:
        return -Errno.ENOENT
    if sum(len(string) + 1 for string in (*argv, *envp)) > ARG_MAX:
        return -Errno.E2BIG
    new, rsp, pieces = await exec_elf(gd, image, argv, envp)
    old, proc.vmspace = proc.vmspace, new
    await npxreset(gd, lp)
    async with gd.kernel.proc_token:
        old.refs -= 1
        unused = not old.refs
    if unused:
        await vmspace_terminate(gd, old)
    proc.program = image
    async with gd.kernel.proc_token:
        parent = proc.parent if proc.ppwait else None
        proc.ppwait = False
        proc.md.brk = proc.md.heap = image.brk
        proc.md.sigacts = {n: act for n, act in proc.md.sigacts.items() if act == Sigaction(1)}
    lp.regs = fresh_regs(rsp)
    md.machine = fresh_machine(image)
    md.progress = 0
    md.sigstk = Sigstk()
    told(gd, proc)
    ktrelf(gd, proc.pid, pieces)
    if parent is not None:
        await gd.kernel.sched.wakeup(ppwait_channel(parent))
    await gd.kernel.sched.setrunqueue(lp)
    return None


async def _strings(gd: GlobalData, vm_map: VmMap, va: int) -> list[bytes] | None:
    """An array of pointers to strings; a null one instead of the array has none."""
    found: list[bytes] = []
    args_max = 64
    while va and len(found) < args_max:
        raw = await copyin(gd, vm_map, va + 8 * len(found), 8)
        if raw is None:
            return None
        pointer = int.from_bytes(raw, "little")
        if not pointer:
            break
        string = await copyinstr(gd, vm_map, pointer, ARG_MAX)
        if string is None:
            return None
        found.append(string)
    return found
