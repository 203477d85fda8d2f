"""Programs, and replacing one by another. DragonFly `kern/kern_exec.c`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vkprotocol.errno import Errno
from vkprotocol.insn import Insn, check_text
from vkprotocol.limits import U64
from vkprotocol.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from vkguest.kern.kern_ktrace import ktrexec
from vkguest.kern.param import DATA_ADDRESS, DATA_PAGES_MAX, TEXT_ADDRESS
from vkguest.kern.proc import FRESH_REGS, Lwp
from vkguest.vm.vm_map import INHERIT_COPY, INHERIT_SHARE, VmMapEntry, vm_map_insert
from vkguest.vm.vm_object import VmObject, vm_object_reference
from vkguest.vm.vmspace import Vmspace, vmspace_alloc, vmspace_terminate

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

TEXT_WORDS: Final = 8  # of the text, put into its page for programs to fetch and check


@dataclass(frozen=True, slots=True)
class Program:
    """An executable: its instructions, its bss, and what it may exec (by index)."""

    name: str
    text: tuple[Insn, ...]
    data_pages: int = 1
    images: tuple[Program, ...] = ()

    def __post_init__(self) -> None:
        check_text(self.text)
        if not 0 <= self.data_pages <= DATA_PAGES_MAX:
            raise ValueError(f"{self.name}: {self.data_pages} data pages, 0 to {DATA_PAGES_MAX}")


def insn_word(insn: Insn) -> int:
    """An instruction as the word that stands for it in the text page."""
    return (
        (insn.op << 56) | (insn.rd << 52) | (insn.rs << 48) | (insn.rt << 44)
        | (insn.imm & 0xFFF_FFFF_FFFF)
    ) & U64  # fmt: skip


async def exec_new_vmspace(gd: GlobalData, pid: int, program: Program) -> Vmspace:
    """kern_exec.c:exec_new_vmspace: text, shared by all who run it, and zero-filled data."""
    vm = await vmspace_alloc(gd)
    text = gd.kernel.text_objects[program]
    await vm_object_reference(text)
    await vm.vm_map.lock.acquire_exclusive()
    rx = PROT_READ | PROT_EXEC
    end = TEXT_ADDRESS + PAGE_SIZE
    vm_map_insert(vm.vm_map, VmMapEntry(TEXT_ADDRESS, end, text, 0, rx, rx, INHERIT_SHARE))
    if program.data_pages:
        rw = PROT_READ | PROT_WRITE
        end = DATA_ADDRESS + program.data_pages * PAGE_SIZE
        data = VmMapEntry(DATA_ADDRESS, end, VmObject(), 0, rw, rw, INHERIT_COPY)
        vm_map_insert(vm.vm_map, data)
    ktrexec(gd, pid, vm.vm_map.entries)
    await vm.vm_map.lock.release()
    return vm


async def sys_execve(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """kern_exec.c:kern_execve: this process runs image r1 of its program from now on."""
    proc = lp.proc
    async with gd.kernel.proc_token:
        alone = len(proc.lwps) == 1
    if not alone and "exec-not-alone" not in gd.mutants:
        return -Errno.EINVAL
    assert isinstance(proc.program, Program)
    images = proc.program.images
    if not args[0] < len(images):
        return -Errno.ENOENT
    program = images[args[0]]
    new = await exec_new_vmspace(gd, proc.pid, program)
    old, proc.vmspace = proc.vmspace, new
    await vmspace_terminate(gd, old)
    proc.program = program
    lp.regs = FRESH_REGS
    lp.pc = 0
    await gd.kernel.sched.setrunqueue(lp)
    return None
