"""What of the kernels no check reaches, and why: by what it is, or by file and function (or class).

A line belongs to a kernel at work: what is executed as a module is imported is none of these.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_X86: Final = "machine code: calls and traps that its shipped programs do not make; see tests/x86"
_OPTION: Final = "an option or a tunable that nothing shipped turns on; unit tests do"
_LOST: Final = "a state, or a race with a third, that no check gets into within its bound"
_UNUSED: Final = "the kernel has it, and nothing that is modelled asks for it; unit tests do"
_SERVED: Final = "only when a host is served to guests in processes of their own (tests/serving)"
_SHORT: Final = "no frame is to be had in the midst of it; unit tests make it so"
_KSTACK: Final = "trap frames on kernel stacks, which a guest has only with `kernel_map`"
_DEFECT: Final = "a deliberate defect, or what stands in its place"
_ANY_MAP: Final = "the way of each reverse map; what asks for it here knows which it is"

# By file, or file and function. Of a function that has lines with and without a reason in it, the
# reason is of those that nothing reaches.
REASONS: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "vkguest/kern/exec_elf.py",
            "vkguest/kern/imgact_elf.py",
            "vkguest/kern/kern_descrip.py",
            "vkguest/kern/kern_sig.py",
            "vkguest/kern/kern_umtx.py",
            "vkguest/kern/pipe.py",
            "vkguest/kern/pipebuf.py",
            "vkguest/kern/vkdisk.py",
            "vkguest/vkernel64/copyio.py",
            "vkguest/vkernel64/npx.py",
            "vkguest/vkernel64/syscall_x86.py",
            "vkguest/vm/vm_file.py",
            "vkguest/vm/vnode_pager.py",
            "vkhost/pc64/cpuid.py",
            "vkhost/pc64/machine_code.py",
            "vkhost/pc64/unicorn_cpu.py",
            "vkguest/kern/callout.py",
            "vkguest/vkernel64/trap.py:trap_dna",
            "vkhost/pc64/fxsave.py",
            "vkhost/pc64/cpu.py:fxsave",
            "vkhost/pc64/cpu.py:fxrstor",
            "vkhost/pc64/cpu.py:unicorn",
            "vkhost/kern/syscall.py:_pread",
            "vkhost/kern/syscall.py:_pwrite",
            "vkguest/kern/kern_exit.py:_proc_zombie",
        ),
        _X86,
    ),
    **dict.fromkeys(
        (
            "vkguest/vkernel64/trap.py:vmspace_run",
            "vkguest/vkernel64/trap.py:kern_trap",
            "vkguest/vkernel64/trap.py:go_user",
            "vkguest/kern/kern_exit.py:lwp_exit",
            "vkguest/vm/vm_kern.py:vm_map_find",
            "vkguest/vm/vm_kern.py:kmem_alloc_stack",
            "vkguest/vm/vm_kern.py:kmem_free",
            "vkguest/vkernel64/pmap.py:pmap_pte",
            "vkguest/vkernel64/dmap.py:access",
            "vkguest/vkernel64/pmap_table.py:pmap_unuse_pt",
            "vkguest/vkernel64/pmap.py:pmap_enter",
            "vkhost/pc64/trap.py:vmspace_ctl",
            "vkhost/pc64/trap.py:_copyin_frame",
            "vkhost/pc64/trap.py:copyin",
            "vkhost/pc64/trap.py:copyout",
            "vkhost/pc64/trap.py:_is_user",
            "vkhost/pc64/trap.py:_refused",
        ),
        _KSTACK,
    ),
    **dict.fromkeys(
        (
            "vkguest/vkernel64/pmap.py:pmap_unwire",
            "vkguest/vkernel64/pmap.py:pmap_extract",
            "vkguest/vkernel64/pmap.py:pmap_protect",
            "vkguest/vkernel64/pmap.py:pmap_removed_pte",
            "vkguest/vkernel64/pmap_inval.py:cpu_invlpg",
            "vkguest/vkernel64/pmap_inval.py:cpu_invltlb",
            "vkguest/vkernel64/pmap_page.py:pmap_clearbit",
            "vkguest/vkernel64/pmap_page.py:pmap_page_protect",
            "vkguest/vkernel64/pmap_page.py:pmap_clear_reference",
            "vkguest/vm/vm_kern.py:pmap_kenter_noinval",
            "vkguest/vm/vm_kern.py:pmap_kremove",
            "vkguest/vm/vm_kern.py:pmap_kremove_noinval",
            "vkguest/vm/vm_kern.py:pmap_qenter_noinval",
            "vkguest/vkernel64/dmap.py:atomic_set_long",
            "vkguest/vm/vm_map.py:vm_map_protect",
            "vkhost/vm/vm_map_protect.py",
            "vkhost/vm/vm_page_cache.py:vm_page_try_to_free",
            "vkhost/pc64/physmem.py:swap",
            "vkhost/pc64/pmap.py:pmap_extract",
            "vkhost/vm/vm_pager.py:vm_pager_has_page",
            "vkhost/vm/vm_mmap.py:kern_munmap",
            "vkhost/vm/vm_mmap.py:kern_mcontrol",
            "vkhost/vm/vm_mmap.py:sys_mmap",
            "vkhost/kern/syscall.py:call",
            "vkhost/rmap/removed.py",
            "vkhost/vm/vm_vmspace_io.py",
            "vkhost/kern/syscall.py:_vmspace_pread",
            "vkhost/kern/syscall.py:_vmspace_pwrite",
            "vkhost/vm/vm_pageout_stats.py:vm_pageout_scan_hold",
            "vkhost/kernel.py:_unheard",
            "vkhost/pc64/tlb.py:entries",
            "vkhost/vm/vm_page.py:key",
            "vkhost/vm/vm_page_queue.py:__len__",
            "vkhost/vm/vm_page_queue.py:__bool__",
            "vkhost/pc64/pmap_inval.py:pmap_inval_range",
            "vkhost/kern/token.py:holders",
            "vkhost/vm/vnode.py:lock_shared",
            "vkhost/rmap/interface.py:statistics",
        ),
        _UNUSED,
    ),
    **dict.fromkeys(
        (
            "vkguest/kern/syscall.py:sys_fail",
            "vkguest/kernel.py:_boot",
            "vkguest/kernel.py:_exec_first",
            "vkguest/kernel.py:_run",
            "vkguest/vkernel64/init.py:boot",
            "vkguest/vkernel64/init.py:init_kern_memory",
        ),
        "a program or a boot that fails; what reaches it ends in a failure, as unit tests show",
    ),
    **dict.fromkeys(
        (
            "vkguest/vkernel64/image.py",
            "vkguest/vkernel64/options.py",
            "vkhost/kern/proc.py:lwp_reap",
            "vkhost/kern/syscall.py:_refuse_the_rest",
            "vkhost/kern/syscall.py:_killed",
            "vkhost/vm/vm_vmspace.py:vkernel_lwp_exit",
            "vkhost/vm/vm_vmspace.py:vkernel_exit",
            "vkhost/vm/vm_vmspace.py:_invalid_refs",
            "vkhost/vm/vnode.py:__init__",
            "vkhost/vm/vnode.py:pread",
            "vkhost/vm/vnode.py:pwrite",
            "vkhost/vm/vnode.py:close",
            "vkhost/kern/proc.py:proc_create",
            "vkhost/kern/proc.py:vn_close",
            "vkhost/pc64/cpu.py:forget_accesses",
            "vkhost/pc64/physmem.py:forget_words",
        ),
        _SERVED,
    ),
    **dict.fromkeys(
        (
            "vkguest/kern/kern_fork.py:fork1",
            "vkguest/kern/sched.py:tsleep",
            "vkguest/kern/sys_pipe.py:sys_pipe_write",
            "vkguest/vkernel64/pmap_page.py:pmap_ts_referenced",
            "vkguest/vm/vm_map.py:vm_map_findspace",
            "vkguest/vm/vm_mmap.py:sys_mmap",
            "vkguest/vm/vm_object.py:vm_object_collapse",
            "vkguest/vm/vm_object.py:_take_over",
            "vkguest/vm/vm_pageout.py:vm_wait",
            "vkguest/vm/vm_pageout.py:vm_pageout_oom",
            "vkguest/vm/vm_pageout.py:vm_pageout_page",
            "vkhost/kern/token.py:_get",
            "vkhost/kern/token.py:_attempt",
            "vkhost/kern/token.py:_take_back_tokens",
            "vkhost/pc64/pmap_inval.py:_cmpset",
            "vkhost/pc64/pmap_inval.py:pmap_inval_smp",
            "vkhost/pc64/physmem.py:cmpset",
            "vkhost/pc64/insn_list.py:_compare_and_swap",
            "vkhost/pc64/pmap_pgscan.py:found",
            "vkhost/pc64/pmap_protect.py",
            "vkhost/pc64/ept_table.py:free",
            "vkhost/rmap/nested.py:free_table",
            "vkhost/rmap/extent_scan.py",
            "vkhost/rmap/pv_entry.py",
            "vkhost/rmap/shadow.py",
            "vkhost/rmap/bloom.py",
            "vkhost/rmap/wired.py:settle",
            "vkhost/rmap/vptmapped.py:remove_all",
            "vkhost/vm/vm_fault.py:vm_fault",
            "vkhost/vm/vm_fault.py:_walk",
            "vkhost/vm/vm_fault.py:_release",
            "vkhost/vm/vm_fault_bypass.py",
            "vkhost/vm/vm_fault_object.py",
            "vkhost/vm/vm_fault_page.py",
            "vkhost/vm/vm_fault_state.py",
            "vkhost/vm/vm_fault_vpagetable.py:_write_back",
            "vkhost/vm/vm_fault_wire.py",
            "vkhost/vm/vm_map.py:vm_map_lock_upgrade",
            "vkhost/vm/vm_map.py:vm_map_findspace",
            "vkhost/vm/vm_map.py:vm_map_check_protection",
            "vkhost/vm/vm_map_backing.py",
            "vkhost/vm/vm_map_clean.py",
            "vkhost/vm/vm_map_clip.py",
            "vkhost/vm/vm_map_delete.py",
            "vkhost/vm/vm_map_interlock.py",
            "vkhost/vm/vm_map_lookup.py",
            "vkhost/vm/vm_map_madvise.py",
            "vkhost/vm/vm_object_madvise.py",
            "vkhost/vm/vm_object_page.py",
            "vkhost/vm/vm_oom.py",
            "vkhost/vm/vm_page_alloc.py",
            "vkhost/vm/vm_page_busy.py:_not_locked",
            "vkhost/vm/vnode.py:try_exclusive",
            "vkhost/vm/vm_page_cache.py:vm_page_cache",
            "vkhost/vm/vm_page_lru.py:vm_page_activate",
            "vkhost/vm/vm_page_queue.py:remove",
            "vkhost/vm/vm_page_wire.py",
            "vkhost/vm/vm_pageout.py",
            "vkhost/vm/vm_pageout_active.py",
            "vkhost/vm/vm_pageout_cache.py",
            "vkhost/vm/vm_pageout_clean.py",
            "vkhost/vm/vm_pageout_inactive.py",
            "vkhost/vm/vm_pageout_page.py",
            "vkhost/vm/vm_pageout_wakeup.py:vm_page_free_wakeup",
            "vkhost/vm/vm_vmspace.py",
            "vkhost/vm/swap_pager.py:swap_pager_putpage",
            "vkhost/kern/proc.py:killproc",
            "vkhost/kern/syscall.py:_kill",
            "vkhost/pc64/pmap_remove.py",
            "vkhost/pc64/tlb.py:load_cr3",
            "vkhost/pc64/pmap_bits.py:pte_prot",
            "vkhost/pc64/nested_walk.py:_fill",
            "vkhost/vm/vm_mmap_map.py:vm_mmap",
            "vkhost/fault_injection.py:_paused",
        ),
        _LOST,
    ),
    **dict.fromkeys(
        (
            "vkhost/vm/vm_fault.py:_debug_fault",
            "vkhost/vm/vm_fault.py:_check_rss",
            "vkhost/vm/vm_pageout_rss.py",
            "vkhost/vm/vm_mmap_map.py",
            "vkhost/vm/vm_map_madvise.py:_count_inval",
            "vkhost/vm/vm_map_madvise.py:_setmap_entry",
            "vkhost/vm/vm_meter.py",
            "vkhost/vm/vm_pager.py",
            "vkhost/vm/vm_fault_collapse.py",
            "vkhost/vm/vmspace.py",
            "vkhost/kernel.py:fault",
            "vkhost/vm/vm_mmap.py",
            "vkhost/vm/vm_map_wire.py",
            "vkhost/pc64/pmap_inval.py:pte_clear_bits",
            "vkhost/pc64/pmap_inval.py:pmap_inval_smp_cmpset",
            "vkhost/pc64/pmap_scan.py",
            "vkhost/vm/vm_pageout_stats.py",
            "vkhost/fault_injection.py:interrupt",
            "vkhost/vm/vm_map.py:pid",
            "vkhost/rmap/broadcast.py",
            "vkhost/rmap/nested.py:copied",
            "vkguest/vkernel64/pmap_page.py:pmap_clear_modify",
            "vkguest/vm/vm_object.py:vm_object_madvise",
            "vkhost/pc64/cpu.py:_remember",
            "vkhost/pc64/slots.py:full",
        ),
        _OPTION,
    ),
    **dict.fromkeys(
        (
            "vkhost/pc64/pmap.py:resident_count",
            "vkhost/pc64/pmap.py:pmap_remove_all",
            "vkhost/pc64/pmap.py:pmap_remove_specific",
            "vkhost/pc64/pmap.py:pmap_testbit",
            "vkhost/pc64/pmap.py:pmap_clearbit",
            "vkhost/pc64/pmap.py:pmap_ts_referenced",
        ),
        _ANY_MAP,
    ),
    **dict.fromkeys(
        (
            "vkguest/vm/vm_page.py:vm_page_deficit",
            "vkguest/vm/vm_page.py:vm_contig_alloc",
            "vkguest/vm/vm_mmap.py:_mmap_large",
        ),
        _SHORT,
    ),
    **dict.fromkeys(
        (
            "vkguest/kern/kern_exit.py:kern_wait",
            "vkguest/kern/sys_pipe.py:sys_pipe_read",
            "vkguest/vkernel64/pmap_inval.py:flush_deferred",
            "vkguest/vkernel64/pmap_inval.py:_zero_and_inval",
            "vkguest/vkernel64/pmap_inval.py:pmap_clean_pte",
            "vkguest/vkernel64/pmap_table.py:_pmap_unwire_pgtable",
        ),
        _DEFECT,
    ),
}


def reason(path: str, line: int, root: Path) -> str:
    """Why nothing reaches this line; empty when there is no reason."""
    source = (root / path).read_text()
    found = kinds(source).get(line)
    if found:
        return found
    for name in enclosing(source, line):
        found = REASONS.get(f"{path}:{name}")
        if found:
            return found
    return REASONS.get(path, "")


@cache
def at_work(source: str) -> frozenset[int]:
    """The lines that are in a function: not those of an import."""
    return frozenset(
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    )


@cache
def kinds(source: str) -> dict[int, str]:
    """Lines that need no reason of their own."""
    found: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        for first, last, why in _spans(node):
            found.update(dict.fromkeys(range(first, last + 1), why))
    return found


def _spans(node: ast.AST) -> Iterator[tuple[int, int, str]]:
    panic = "a panic: the kernels would have to be wrong"
    refused = "what is refused: no program here asks for it, and unit tests of the call do"
    short = "no frame is to be had just there"
    lock = "noted only where the order of locks is enforced: in tests"
    if isinstance(node, ast.If) and "mutants" in ast.unparse(node.test):
        for branch in filter(None, (node.body, node.orelse)):
            yield branch[0].lineno, branch[-1].end_lineno or 0, _DEFECT
        yield node.lineno, node.lineno, _DEFECT
    if isinstance(node, ast.ExceptHandler):
        caught = "" if node.type is None else ast.unparse(node.type)
        if caught in ("VmWait", "Fault", "BootError", "OSError"):
            yield node.lineno, node.end_lineno or 0, short if caught == "VmWait" else refused
    if isinstance(node, ast.Raise | ast.Expr | ast.Return):
        said, span = ast.unparse(node), (node.lineno, node.end_lineno or 0)
        if said.startswith(("panic(", "raise GuestPanic", "raise Panic", "kkassert(")):
            yield *span, panic
        elif said.startswith("raise NotImplementedError"):
            yield *span, "what every reverse map has of its own"
        elif (
            said.startswith("raise LockOrderError") or ".held." in said or said == "took(me, self)"
        ):
            yield *span, lock
        elif said.startswith("raise VmWait"):
            yield *span, short
        elif said.startswith("raise ") or "Errno." in said or "return KERN_" in said:
            yield *span, refused
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [argument.arg for argument in node.args.args]
        if node.name in ("__repr__", "__str__"):
            yield node.lineno, node.end_lineno or 0, "what people are shown"
        if names[-1:] == ["writing"]:
            yield (
                node.lineno,
                node.end_lineno or 0,
                "whether a field is touched under its lock: where tests enforce that",
            )


def enclosing(source: str, line: int) -> list[str]:
    """Functions and classes around a line, the innermost first."""
    return [node.name for node in _around(source, line)]


def spans(source: str, line: int) -> list[tuple[int, int]]:
    """Their bodies, in lines: what is executed when they are called."""
    return [(node.body[0].lineno, node.end_lineno or 0) for node in _around(source, line)]


def _around(source: str, line: int) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds_of = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds_of) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return sorted(found, key=lambda node: -node.lineno)
