"""Generated mutants that were looked at and change nothing that anybody could see, each with why.

By function and changed lines, so that they are found again when the file has moved them.
"""

from __future__ import annotations

from typing import Final

_AGES: Final = "how fast a page ages: which one goes first is promised to nobody"
_BOTH: Final = "both are None, or neither"
_MADE_ANEW: Final = "an access that is not remembered is made anew, and is the same"
_COUNTED: Final = "counted, as in the real function, and read by nobody"
_PS_ONLY: Final = "a directory entry with no page table below it is a PS entry, or 0"

EQUIVALENT: Final[dict[str, str]] = {
    "vkguest/vkernel64/pmap.py:pmap_remove wrong constant: -if old & VPTE_PS: +if old & "
    "VPTE_FRAME:": _PS_ONLY,
    "vkguest/vkernel64/pmap.py:pmap_protect wrong constant: -if not pte & VPTE_MANAGED: +if "
    "not pte & VPTE_FRAME:": ("all VPTEs of the page tables of a process are managed"),
    "vkguest/vkernel64/pmap_page.py:pmap_ts_referenced left out: -count += 1 +pass": _AGES,
    "vkhost/rmap/pv_entry.py:remove_all wrong constant: -await vm_page_flag_clear(m, "
    "PG_MAPPED | PG_MAPPEDMULTI | PG_WRITEABLE) +await vm_page_flag_clear(m, PG_MAPPED | "
    "PG_MAPPEDMULTI | PG_MAPPED)": ("`remove` has cleared them already, with the last pv_entry"),
    "vkhost/vm/vm_fault.py:_install left out: -await vm_prefault(fs) +pass": (
        "what is not mapped ahead is mapped by the fault that wants it"
    ),
    'vkhost/vm/vm_fault.py:fault_name wrong constant: -return "execute" if fault_type & '
    'VM_PROT_EXECUTE else "read" +return "execute" if fault_type & VM_PROT_WRITE else "read"': (
        "a word of the event fault.begin, by which nobody goes"
    ),
    "vkhost/vm/vm_fault_object.py:_take_resident left out: -await "
    "fs.first_ba.excl_heur.store(False) +pass": (
        "a hint: the next fault begins with the exclusive token, which is always right"
    ),
    "vkhost/vm/vm_fault_vpagetable.py:vm_fault_vpagetable flag forgotten: -result = await "
    "vm_fault_object(fs, vpte_frame(vpte), VM_PROT_READ | VM_PROT_WRITE) +result = await "
    "vm_fault_object(fs, vpte_frame(vpte), VM_PROT_WRITE)": ("vm_fault_object asks for WRITE only"),
    "vkhost/vm/vm_oom.py:oom_victim bound off by one: -if proc.pid == init_pid or (proc.pid <"
    " low_pid and kernel.config.swap_pages): +if proc.pid == init_pid or (proc.pid <= low_pid"
    " and kernel.config.swap_pages):": ("pids begin at 100"),
    "vkhost/vm/vm_pageout_active.py:_age one too few: -m.act_count = min(m.act_count + "
    "ACT_ADVANCE + actcount, ACT_MAX) +m.act_count = min(m.act_count + actcount, ACT_MAX)": _AGES,
    "vkhost/vm/vm_pageout_clean.py:vm_pageout_flush wrong constant: -protection = "
    "VM_PROT_NONE if vmflush_flags & OBJPC_TRY_TO_CACHE else VM_PROT_READ +protection = "
    "VM_PROT_NONE if vmflush_flags & OBJPC_TRY_TO_CACHE else VM_PROT_NONE": (
        "more is taken away than has to be: the next fault"
    ),
    "vkhost/vm/vm_pageout_page.py:_referenced one too few: -m.act_count += actcount + "
    "ACT_ADVANCE +m.act_count += actcount": _AGES,
    "vkhost/vm/vm_pageout_rss.py:vm_pageout_mdp_callback left out: -scan.actioncount += 1 +pass": (
        _COUNTED
    ),
    "vkhost/vm/vnode_pager.py:vnode_pager_haspage bound off by one: -return pindex * "
    "PAGE_SIZE < obj.handle.size +return pindex * PAGE_SIZE <= obj.handle.size": (
        "no page of an object lies at its size: vm_fault refuses it first"
    ),
    "vkhost/rmap/broadcast.py:clearbit condition dropped: -if bit == PTE_A and not before"
    " and await m.flags.load() & PG_REFERENCED:"
    " +if (bit == PTE_A and await m.flags.load() & PG_REFERENCED):": _AGES,
    "vkhost/rmap/broadcast.py:clearbit condition dropped: -if bit == PTE_A and not before"
    " and await m.flags.load() & PG_REFERENCED:"
    " +if (bit == PTE_A and not before):": _AGES,
    "vkhost/rmap/broadcast.py:clearbit condition dropped: -if bit == PTE_A and not before"
    " and await m.flags.load() & PG_REFERENCED:"
    " +if (not before and await m.flags.load() & PG_REFERENCED):": _AGES,
    "vkhost/rmap/pv_entry.py:_remove_listed condition dropped: -if pmap is None or pte is None:"
    " +if (pmap is None):": _BOTH,
    "vkhost/rmap/pv_entry.py:_remove_listed condition dropped: -if pmap is None or pte is None:"
    " +if (pte is None):": _BOTH,
    "vkhost/pc64/cpu.py:_remember bound off by one: -if len(accesses) >= remembered_accesses:"
    " +if len(accesses) > remembered_accesses:": _MADE_ANEW,
    "vkhost/pc64/cpu.py:_remember condition inverted: -if len(accesses) >= remembered_accesses:"
    " +if not (len(accesses) >= remembered_accesses):": _MADE_ANEW,
    "vkhost/vm/vm_pageout_page.py:_referenced left out: -m.act_count"
    " += actcount + ACT_ADVANCE +pass": _AGES,
    "vkguest/vm/vm_pageout.py:vm_pageout_page condition dropped: -if await "
    "_referenced(gd, m) and passes < 2:"
    " +if (passes < 2):": _AGES,
    "vkhost/vm/vm_page_dirty.py:vm_page_test_dirty condition dropped: -if await "
    "m.dirty.load() != VM_PAGE_BITS_ALL and await m.kernel.rmap.testbit(m, PTE_M):"
    " +if (await m.kernel.rmap.testbit(m, PTE_M)):": "what is dirty is made dirty again",
    "vkhost/vm/vm_map_backing.py:vm_map_backing_replicated condition dropped: -if "
    "not clipped and await ba.object.ref_count.load() > 1: +if (not clipped):": (
        "the source has its reference too: there are two at least"
    ),
    "vkhost/vm/vmspace.py:vmspace_rel left out: -await "
    "pmap_remove_pages(vmspace.pmap, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS) +pass": (
        "vm_map_remove takes what is left of the PTEs, entry by entry"
    ),
    "vkhost/vm/vm_pageout_page.py:_vget_unbusied left out: -laundry.vnodes_skipped "
    "+= 1 +pass": _COUNTED,
    "vkhost/vm/vm_page_lru.py:vm_page_unqueue left out: -await pagedaemon_wakeup(m.kernel) +pass": (
        "whoever takes a page, or waits for one, wakes the daemon himself"
    ),
    "vkguest/vm/vm_pageout.py:vm_pageout_page bound off by one: -if await "
    "_referenced(gd, m) and passes < 2: +if await _referenced(gd, m) and passes <= 2:": _AGES,
    'vkhost/vm/vm_pageout_page.py:_still_dirty left out: -await _leave(m, "unqueue") +pass': (
        "not reached: vm_page_wire takes the page off its queue, which is looked at before"
    ),
    "vkguest/vm/vm_map.py:vm_map_fork wrong constant: -if entry.protection & "
    'PROT_WRITE and "fork-without-protect" not in gd.mutants: +if entry.protection '
    '& PROT_READ and "fork-without-protect" not in gd.mutants:': (
        "what is written only cannot be written: a write fault asks for READ as well; and "
        "of what is read only no VPTE is writable"
    ),
    "vkhost/vm/vm_object_madvise.py:_advise condition dropped: -if m.valid != "
    "VM_PAGE_BITS_ALL or await m.wire_count.load() or flags & UNFIT: +if (m.valid != "
    "VM_PAGE_BITS_ALL or flags & UNFIT):": (
        "what is given up may be lost; and no function of the queues puts a wired page on one"
    ),
    "vkhost/vm/vm_fault_page.py:vm_fault_page condition dropped: -return quick, "
    "KERN_SUCCESS, busy and bool(fault_type & VM_PROT_WRITE) +return quick, "
    "KERN_SUCCESS, (busy)": "whoever wants it busied wants to write",
    "vkguest/vm/vm_fault.py:vm_fault_object retry not taken: -while (below := "
    "obj.backing) is not None and pindex in below.pages: +if (below := obj.backing) "
    "is not None and pindex in below.pages:": "what a deliberate defect does",
    "vkguest/vm/vm_page.py:vm_page_dontneed left out: -m.flags &= ~PG_REFERENCED +pass": _AGES,
    "vkguest/vm/vm_pageout.py:_referenced left out: -count += bool(m.flags & "
    "PG_REFERENCED) +pass": _AGES,
    "vkguest/vm/vm_pageout.py:_referenced left out: -m.flags &= ~PG_REFERENCED +pass": _AGES,
    "vkhost/vm/vm_pageout_rss.py:_referenced wrong constant: -if m.queue != "
    "PQ_ACTIVE: +if m.queue != PQ_INACTIVE:": _AGES,
    "vkhost/vm/vm_pageout_rss.py:_referenced condition inverted: -if m.queue != "
    "PQ_ACTIVE: +if not (m.queue != PQ_ACTIVE):": _AGES,
    'vkhost/vm/vm_fault.py:fault_name condition inverted: -return "execute" if '
    'fault_type & VM_PROT_EXECUTE else "read" +return "execute" if not '
    '(fault_type & VM_PROT_EXECUTE) else "read"': (
        "a word of the event fault.begin, by which nobody goes"
    ),
    "vkhost/vm/vm_pageout_active.py:_deactivate condition dropped: -clean = await "
    "m.dirty.load() == 0 and not await m.flags.load() & PG_NEED_COMMIT +clean = "
    "(await m.dirty.load() == 0)": "PG_NEED_COMMIT is NFS's, which is not here: nobody sets it",
    "vkguest/vkernel64/pmap_page.py:pmap_clear_reference left out: -await "
    "pmap_clearbit(gd, m, VPTE_A) +pass": "nobody calls it",
    "vkhost/kern/kern_ktrace.py: flag forgotten: -msg.Mmap | msg.Munmap | "
    "msg.Madvise | msg.Msync | Mprotect | Mlock | Munlock | Fork +msg.Mmap | "
    "msg.Munmap | msg.Madvise | msg.Msync | Mprotect | Mlock | Munlock": "a type",
    "vkguest/vkernel64/pmap.py:pmap_enter wrong constant: -await atomic_set_long(gd, "
    "ptep, VPTE_M) +await atomic_set_long(gd, ptep, VPTE_A)": (
        "not reached: whoever enters a page there has it busied and the map locked, so "
        "that the VPTE stays 0 until it is swapped"
    ),
    "vkhost/pc64/pmap_pte.py:put condition dropped: -if pte and not self.listed: +if (not"
    " self.listed):": ("where a PTE that is 0 is listed, it is passed over"),
    "vkhost/vm/vm_pageout_active.py:vm_pageout_scan_active condition dropped: -elif isep "
    "and m.object is not None and m.object.type == OBJT_VNODE: +elif (isep and "
    "m.object.type == OBJT_VNODE):": (
        "whoever takes a page off its object has it busied, and frees it or has found it wired"
    ),
    "vkhost/vm/vm_fault_state.py:unlock_things left out: -fs.lookup_still_valid = False +pass": (
        "whoever unlocks all gives up, or starts again: `reset` says the same"
    ),
    "vkguest/kern/kern_exec.py:insn_word flag forgotten: -(insn.op << 56) | (insn.rd << "
    "52) | (insn.rs << 48) | (insn.rt << 44) -| (insn.imm & 0xFFF_FFFF_FFFF) +insn.imm & "
    "0xFFF_FFFF_FFFF": (
        "which word stands for an instruction is promised to nobody: who compares makes it anew"
    ),
    "vkhost/vm/vm_fault_collapse.py:vm_fault_collapse flag forgotten: -fs.first_prot = "
    "entry.max_protection | VM_PROT_READ | VM_PROT_WRITE | VM_PROT_OVERRIDE_WRITE "
    "+fs.first_prot = VM_PROT_WRITE | VM_PROT_OVERRIDE_WRITE": (
        "vm_fault_object asks for WRITE only, and what it allows is not entered"
    ),
    "vkhost/vm/vm_fault_page.py:_finish left out: -await vm_page_wakeup(m) +pass": (
        "not reached: whoever wants to write has found WRITE in the entry, and only what "
        "wants to read loses it"
    ),
    "vkguest/vkernel64/syscall_x86.py:first left out: -told(gd, child) +pass": (
        "an event, by which nobody goes"
    ),
    "vkhost/vm/vm_pageout.py:vm_pageout_thread left out: -kernel.pagedaemon.emergpager = "
    "curthread() +pass": ("read by nobody"),
    "vkhost/pc64/pmap_protect.py:pmap_protect wrong constant: -if not prot & (VM_PROT_READ "
    "| VM_PROT_EXECUTE): +if not prot & (VM_PROT_READ | VM_PROT_READ):": (
        "more is taken away than has to be: the next fault"
    ),
    "vkhost/vm/vm_fault_prefault.py:vm_prefault left out: -va += step +pass": (
        "what is not mapped ahead is mapped by the fault that wants it"
    ),
    "vkhost/vm/vm_fault_bypass.py:_usable bound off by one: -if m.valid != "
    "VM_PAGE_BITS_ALL or m.queue != PQ_ACTIVE: +if m.valid == VM_PAGE_BITS_ALL or m.queue "
    "!= PQ_ACTIVE:": ("a shortcut, not taken then: the same page is found the long way"),
    "vkguest/kern/imgact_elf.py:elf_image bound off by one: -if len(raw) < HEADER.size or "
    "raw[:4] != magic: +if len(raw) <= HEADER.size or raw[:4] != magic:": (
        "a header alone has no segment: it is refused, in other words"
    ),
    "vkhost/pc64/machine_code.py:footprint condition dropped: -if self.lwp.signals.state "
    "or not self.budget: +if (self.lwp.signals.state):": (
        "of a step of which nothing comes more is announced than it does"
    ),
    "vkhost/vm/vm_page_alloc.py:_select_cache retry not taken: -while True: +if True:": (
        "whoever is given none waits for the daemon, and asks again"
    ),
    "vkhost/vm/vm_object_page.py:_clean_marked condition dropped: -elif not await "
    "_is_dirty(m) or (flags & OBJPC_NOSYNC and await m.flags.load() & PG_NOSYNC): +elif "
    "(not await _is_dirty(m)):": (
        "nobody asks for a part of the pages: OBJPC_NOSYNC is the syncer's, which is not here"
    ),
    "vkhost/vm/vm_pageout.py:_asked left out: -p.stats_seconds += interval +pass": _AGES,
    "vkhost/rmap/pv_entry.py:_remove_listed swapped: +await self.remove(pmap, m, pte, "
    "value) -await self.remove(pmap, m, pte, value)": (
        "the page is busied all the while: whoever asks whether it is dirty waits"
    ),
    "vkhost/vm/vm_pageout_active.py:vm_pageout_scan_active left out: -await "
    "vm_page_unqueue_nowakeup(m) +pass": ("no function of the queues puts a wired page on one"),
    "vkhost/rmap/broadcast.py:testbit wrong constant: -return bool(await m.flags.load() & "
    "PG_REFERENCED) +return bool(await m.flags.load() & PG_VPTMAPPED)": _AGES,
    "vkhost/vm/vm_pageout.py:_scan_active left out: -inactive_shortage += "
    "min(avail_shortage * 2, meter.v_inactive_target // 10) +pass": _AGES,
    "vkhost/pc64/slots.py:full answer inverted: -return False +return True": (
        "more is translated anew than has to be"
    ),
    "vkguest/vkernel64/init.py:init_kern_memory flag forgotten: -flags = MAP_FILE | "
    "MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED | MAP_TRYFIXED +flags = MAP_FILE | MAP_SHARED "
    "| MAP_VPAGETABLE | MAP_TRYFIXED": ("TRYFIXED says where, too, and nothing is there"),
    "vkhost/vm/vmspace.py:vmspace_fork left out: -vm2.vm_map.private = False +pass": (
        "only who checks that locks are held asks"
    ),
    "vkguest/vkernel64/pmap.py:pmap_enter wrong constant: -if newpte & VPTE_RW: +if "
    "newpte & VPTE_A:": (
        "the flag promises less then: whoever clears M looks at PTEs of which none is writable"
    ),
    "vkguest/vkernel64/options.py:options_of condition dropped: -memory = "
    'memory_size(args.memory or "") +memory = memory_size((args.memory))': (
        "None is no text either"
    ),
    "vkguest/vkernel64/pmap_inval.py:pmap_clean_pte condition dropped: -if pte & clear "
    "& VPTE_RW and not early: +if (pte & clear & VPTE_RW):": ("what a deliberate defect does"),
    "vkguest/vm/vm_object.py:vm_object_madvise bound off by one: -if advise == "
    "MADV_WILLNEED: +if advise != MADV_WILLNEED:": (
        "what is given up may be kept, and WILLNEED does as DONTNEED: how fast a page ages"
    ),
}
