"""The guest's lock classes and their ranks: a lock is taken only while every held one ranks lower.

    PROC_TOKEN      process tree, exit status, wait         kern_exit.c
    PIPE_LOCK       a pipe of bytes                         sys_pipe.c
    UMTX_LOCK       umtx words, from the look to the sleep  kern_umtx.c
    MAP_LOCK        vm_map.lock                             vm_map.c
    OBJECT_LOCK     one shadow tree of vm_objects           vm_object.c:vm_object_hold
    PTEOBJ_LOCK     pmap.pm_pteobj                          vkernel64 pmap.c
    PAGE_SPIN       vm_page spin: pv_list, flags, dirty     vm_page2.h:vm_page_spin_lock
    PAGE_QUEUE      free list, page queues, wire counts     vm_page.c
    SWAP_LOCK       free swap slots                         swap_pager.c
    KVA_LOCK        free kernel virtual addresses           vm_kern.c
    SCHED_LOCK      sleep queues                            kern_synch.c

The busy bit of a page (PBUSY_LOCKED) is only ever tried while a lock is held; whoever must wait
for it lets go of the object lock first. pmap_remove_all comes from a page to its pmaps and so has
the reversed order: it takes pm_pteobj, then looks whether the page is still mapped there.
"""

from __future__ import annotations

from typing import Final

PROC_TOKEN: Final = 10
PIPE_LOCK: Final = 15
UMTX_LOCK: Final = 16
MAP_LOCK: Final = 20
OBJECT_LOCK: Final = 30
PTEOBJ_LOCK: Final = 40
PAGE_SPIN: Final = 50
PAGE_QUEUE: Final = 60
SWAP_LOCK: Final = 70
KVA_LOCK: Final = 80
SCHED_LOCK: Final = 90
