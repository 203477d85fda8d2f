"""Lock classes and their ranks: a lock is taken only while every held lock ranks lower.

    vkp token, vm_object token      unordered: LWKT tokens are given up rather than deadlocked on
    MAP_LOCK        vm_map.lock                          vm_map.c
    EPT_MAP_LOCK    the same of a second-stage table     ours, policy `nested`
    VNODE_LOCK      vnode lock (shared in vm_fault)      vm_fault.c, after map lock and token
    EPT_LOCK        which second-stage tables there are  ours, policy `nested`
    ILOCK_SPIN      vm_map.ilock_spin                    vm_map.c:vm_map_interlock
    SHADOW_LOCK     edits of page tables, `shadow`       ours, after KVM's mmu_lock
    PLACEMARK       pte_placemark of some VAs            pmap.c, after the page's busy bit
    PT_PV           pv of one page table page            pmap.c, after the placemark
    MMU_LOCK        of one pmap, policy `notifier`       ours, after KVM's mmu_lock
    BACKING_LK      vm_object.backing_lk                 vm_map.c, pmap.c:PMAP_PAGE_BACKING_SCAN
    PV_LIST         m.md.pv_list                         pmap.c ([54])
    PAGE_QUEUE      one colour of one page queue         vm_page.c
    SWAP_SPIN       swap metadata                        swap_pager.c

The busy bit of a page is no lock (it may be handed from thread to thread); it is taken after the
object token and before SHADOW_LOCK and PLACEMARK.
"""

from __future__ import annotations

from typing import Final

MAP_LOCK: Final = 10
EPT_MAP_LOCK: Final = 12
VNODE_LOCK: Final = 20
EPT_LOCK: Final = 25
ILOCK_SPIN: Final = 30
SHADOW_LOCK: Final = 35
PLACEMARK: Final = 40
PT_PV: Final = 42
MMU_LOCK: Final = 45
BACKING_LK: Final = 50
PV_LIST: Final = 60
PAGE_QUEUE: Final = 70
SWAP_SPIN: Final = 80
