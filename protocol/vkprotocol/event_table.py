"""The events of a run, as text that events.py reads."""

from __future__ import annotations

from typing import Final

# Three lines an event: level, name and fields; meaning; where DragonFly does it. A field may have
# a meaning of its own, `name=meaning`, and a kind of its own, `name=meaning:kind`.
TABLE: Final = """
debug page.alloc pfn gen object pindex
  a frame gets an owner, hard-busied, PG flags 0
  vm_page.c:vm_page_alloc
debug page.free pfn gen
  the frame loses its owner and goes to PQ_FREE
  vm_page.c:vm_page_free_toq
debug page.queue pfn old=queue_before new=queue_after
  the page moves between queues (numbers of QUEUES)
  vm_page.c:_vm_page_add_queue_spinlocked, _vm_page_rem_queue_spinlocked
debug page.flags pfn set clear
  PG_* bits change
  vm_page2.h:vm_page_flag_set, vm_page_flag_clear
debug page.dirty pfn value
  the dirty mask becomes value (0 clean)
  vm_page.c:vm_page_dirty, vm_page_undirty
debug page.discard pfn
  the content is no longer needed (MADV_FREE, truncation, death of the object)
  vm_page.c:vm_page_dontneed; vm_object.c
debug page.busy pfn kind
  the page is busied
  vm_page.c:vm_page_busy_try; vm_page2.h:vm_page_io_start
debug page.unbusy pfn kind
  the page is no longer busied
  vm_page.c:vm_page_wakeup, vm_page_io_finish
debug page.wire pfn count
  the wire count changes
  vm_page.c:vm_page_wire, vm_page_unwire
debug page.hold pfn count
  the hold count changes
  vm_page.c:vm_page_hold, vm_page_unhold
debug page.zero pfn
  all words become 0
  vm_page.c:vm_page_zero_fill
debug page.copy src dst
  all words are copied
  vm_page.c:vm_page_copy
debug page.write pfn content
  the whole content is replaced by bytes from outside the machine
  kern_subr.c:uiomove
debug pager.content object pindex content
  what the backing store held before the run: told when first read, unless all zero
  vnode_pager.c:vnode_pager_generic_getpages
info pager.get object pindex pfn
  content comes from the backing store
  vm_pager.c:vm_pager_get_page
info pager.put object pindex pfn
  content goes to the backing store
  vm_pager.c:vm_pager_put_pages
debug pte.write pmap va old new why
  a host PTE changes, A and M of the hardware included
  pc64 pmap.c
debug tlb.fill cpu pmap va pfn bits
  the TLB takes a PTE
  hardware
debug tlb.flush cpu va=page_or_-1_for_all
  TLB entries are dropped
  pc64 cpufunc.h:cpu_invlpg, cpu_invltlb
debug ipi.send cpu=target pmap va
  shootdown request
  pc64 pmap_inval.c:pmap_inval_smp
debug ipi.ack cpu
  the CPU has flushed
  pc64 pmap_inval.c:pmap_inval_intr
debug mem.load cpu pmap va pfn idx value
  a word is read through the TLB
  hardware
debug mem.store cpu pmap va pfn idx value
  a word is written through the TLB
  hardware
debug mem.cmpset cpu pmap va pfn idx value=new_value ok old=word_before
  a locked compare-and-set through the TLB
  hardware
debug mem.emulate cpu pmap va pfn idx value=new_value
  a write to a page table, of a page its first word, is done by the fault it has caused
  none; Linux arch/x86/kvm/x86.c:emulator_write_phys
debug user.insns lwp rip count=instructions:int
  machine code is executed from rip on; what it accesses follows
  hardware
debug vpte.read pfn idx value vshift
  the host walker reads a VPTE; vshift is what remains of the index below it
  vm_fault.c:vm_fault_vpagetable
debug vpte.am pfn idx old new
  the host writes A or M back
  vm_fault.c:vm_fault_vpagetable
debug walk.begin cpu pmap va
  nested paging: the TLB has nothing, and the CPU begins to walk the guest's page table
  hardware
debug walk.end cpu pmap va why map=second_stage gpa
  it is over: filled, guest-fault, violation, or interrupted by a flush
  hardware
debug fault.begin map va type
  page fault
  vm_fault.c:vm_fault
debug fault.retry map va why
  the fault starts again (TRY_AGAIN)
  vm_fault.c:vm_fault
debug fault.end map va result
  the fault is resolved or fails
  vm_fault.c:vm_fault
debug map.lock.wait map exclusive
  a thread asks for the map lock
  vm_map.h:vm_map_lock, vm_map_lock_read
debug map.lock map exclusive
  it has the map lock; again for an upgrade or downgrade
  vm_map.h:vm_map_lock, vm_map_lock_upgrade
debug map.unlock map
  it gives the map lock back
  vm_map.h:vm_map_unlock
debug ilock.wait map start end
  a thread finds an overlapping interlock and sleeps
  vm_map.c:vm_map_interlock
debug ilock.enter map start end
  the range is interlocked
  vm_map.c:vm_map_interlock
debug ilock.exit map start end
  the range is free
  vm_map.c:vm_map_deinterlock
info inval.begin pmap start end
  MADV_INVAL starts, before its pmap_remove
  vm_map.c:vm_map_madvise
info inval.end pmap start end
  MADV_INVAL returns
  vm_map.c:vm_map_madvise
info setmap.begin pmap start end value=master_pde
  MADV_SETMAP starts
  vm_map.c:vm_map_madvise
info setmap.end pmap start end value=master_pde
  MADV_SETMAP returns
  vm_map.c:vm_map_madvise
info map.insert map start end maptype object offset
  a range is mapped, from object page offset on
  vm_map.c:vm_map_insert
debug map.root map start end value=master_pde
  fork copies the root of a VPAGETABLE range
  vm_map.c:vmspace_fork_normal_entry
info map.remove map start end
  a range is no longer mapped
  vm_map.c:vm_map_delete
debug map.object map start end object offset
  the range gets its object, or a shadow of it
  vm_map.c:vm_map_entry_allocate_object, vm_map_entry_shadow
debug ept.link pmap slot page
  a second-stage page table is linked, the page-th one there
  pc64 pmap.c:pmap_allocpte
debug ept.read cpu pmap slot page
  a nested walk has read a second-stage page table
  hardware
info ept.free pmap slot page
  a second-stage page table is freed
  KVM mmu.c:kvm_mmu_commit_zap_page
debug cpu.pmap cpu pmap
  %cr3 is loaded
  pc64 pmap.c:pmap_setlwpvm
debug cpu.active pmap mask
  pm_active changes
  pc64 pmap.c:pmap_setlwpvm
info lwp.create proc lwp
  a thread of a process
  kern_fork.c:lwp_fork
info proc.create proc pmap
  a host process and its own address space
  kern_fork.c:fork1
info vmspace.create proc id pmap
  a guest address space
  vm_vmspace.c:sys_vmspace_create
info vmspace.destroy proc id errno
  vmspace_destroy has been decided
  vm_vmspace.c:sys_vmspace_destroy
debug vmspace.ref proc id refs
  the references of the vmspace_entry change
  vm_vmspace.c:vkernel_find_vmspace, vmspace_entry_drop
debug run.enter lwp id
  the vCPU enters the guest vmspace
  vm_vmspace.c:sys_vmspace_ctl
debug run.exit lwp id trapno addr
  it leaves by a trap, a system call or a signal
  vm_vmspace.c:vkernel_trap
debug syscall.begin lwp name
  system call of a guest
  pc64 trap.c:syscall2
debug syscall.end lwp name errno value
  its result
  pc64 trap.c:syscall2
info pageout.pass pass shortage
  the daemon starts a pass
  vm_pageout.c:vm_pageout_thread
debug pageout.page pfn action
  what a scan did with one page
  vm_pageout.c:vm_pageout_page, vm_pageout_scan_active
info pageout.launder pfn leader count
  the page is written as one of a cluster of count pages
  vm_pageout.c:vm_pageout_clean_helper
info pageout.rss pmap count
  pages deactivated for a resident set limit
  vm_pageout.c:vm_pageout_map_deactivate_pages
debug pageout.wait name
  a thread waits for free pages
  vm_page.c:vm_wait, vm_wait_pfault
debug pageout.wakeup count=free_pages
  the waiters for free pages are woken
  vm_pageout.c:vm_pageout_thread
warning oom.kill proc pages reason
  a process is killed for memory
  vm_pageout.c:vm_pageout_scan_callback
info fault.inject name who
  a fault of a device, a CPU or a process comes that the scenario asks for
  none: the real ones come unasked
info object.create object type size
  an object
  vm_object.c:vm_object_allocate
debug object.shadow object backing offset
  pages the object lacks are those of backing, at pindex + offset
  vm_map.c:vm_map_entry_shadow
info object.destroy object
  the object is gone, its pages freed
  vm_object.c:vm_object_terminate
debug guest.alloc proc pindex name=owner
  the guest kernel gives a frame of its image to an owner
  vkernel64 vm_page.c:vm_page_alloc
debug guest.free proc pindex
  the guest kernel takes it back: no translation may lead there any more
  vkernel64 vm_page.c:vm_page_free
error guest.fail proc pid=guest_process:int va expected=what_it_wrote:int got=what_it_reads:int
  a guest program finds in its memory what it did not put there
  none: the workloads check themselves
info guest.exec proc pid=guest_process:int id name=program
  a guest process runs a program in a new address space, or the child of a fork its parent's
  vkernel64 kern_exec.c:exec_new_vmspace
info guest.write proc pid=guest_process:int fd=descriptor:int content
  a guest program writes to its standard output or error
  vkernel64 sys_generic.c:sys_write
debug guest.clean proc id va
  the guest relies on VPTE_M and RW as it has just cleared and invalidated them
  vkernel64 pmap_inval.c:pmap_clean_pte
debug user.run lwp who
  from here on the vCPU runs this program whenever it enters a guest vmspace
  vkernel64 trap.c:go_user
debug user.exec who
  a program begins, with nothing mapped
  kern_exec.c:exec_new_vmspace
debug user.map who start end prot flags=MAP_*_flags:int content=of_its_first_words
  the program finds this mapped as it begins
  kern_exec.c:exec_new_vmspace
debug user.call who tid=thread_of_it:int name start end prot flags=MAP_*_flags:int value
  a program asks for something that concerns its memory; again when it had to wait
  trap.c:syscall2
debug user.copyin who tid=thread_of_it:int va content
  what the kernel has read of its memory, by the byte: the end of a call copyin
  copyio.c:copyin
debug user.copyout who tid=thread_of_it:int va content
  what the kernel writes to its memory, by the byte, until it says how that went
  copyio.c:copyout
debug user.file who tid=thread_of_it:int name offset=in_the_file,_in_bytes:int
  the mmap under way is of this file
  vm_mmap.c:sys_mmap
debug user.content who=host_process name content
  a file of a guest's disk, as it is before anybody has written to it
  vkdisk.c:vkdinit
debug user.return who tid=thread_of_it:int name errno value
  the answer
  trap.c:syscall2
debug user.fork who tid=thread_of_it:int child=program,_as_who:str
  the copy is made
  kern_fork.c:fork1
debug user.vfork who tid=thread_of_it:int child=program,_as_who:str
  a program that begins in the address space of another
  kern_fork.c:fork1
debug user.fault lwp who va prot
  an access of a program is refused
  trap.c:trap_pfault
debug user.exit who
  the program has ended: no thread of it is left
  kern_exit.c:exit1
warning console text
  a line on the console
  kprintf
error panic text
  the host kernel panics
  panic
warning log.dropped count=events_not_in_the_log first=seq_of_the_first:int last=of_the_last:int
  a live log was not written as fast as events came; nothing is known of what they did
  none: ktr(4) writes over its oldest entries
"""
