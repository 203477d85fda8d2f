"""A host whose memory is pages of one file, for tests of the pageout daemon."""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import CURTHREAD, Body
from vkprotocol.param import PAGE_SIZE

from tests.vkhost.machine import Machine
from vkhost.vm.vm import VM_MAPTYPE_NORMAL, VM_PROT_ALL
from vkhost.vm.vm_map import vm_map_find
from vkhost.vm.vm_object import OBJT_DEFAULT, VmObject, vm_object_allocate
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_busy_try, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_dirty
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_deactivate
from vkhost.vm.vm_page_queue import PQ_NAMES
from vkhost.vm.vmspace import Vmspace, vmspace_alloc
from vkhost.vm.vnode import MemoryVnode
from vkhost.vm.vnode_pager import vnode_pager_alloc

SIZE = 16  # pages of the file


class Pages(Machine):
    """`file`: an object of SIZE pages, mapped NORMAL at 0 in `vmspace`."""

    def __init__(self, policy: str = "extent_scan", **config: Any) -> None:
        super().__init__(policy, **{"pages": 32, "swap_pages": 16, **config})
        self.vnode = MemoryVnode("file", SIZE * PAGE_SIZE)
        self.file: VmObject = self.drive(vnode_pager_alloc(self.kernel, self.vnode))
        self.vmspace: Vmspace = vmspace_alloc(self.kernel, "process", pmap_id=1)
        self.drive(
            vm_map_find(
                self.vmspace.vm_map, self.file, 0, 0, SIZE * PAGE_SIZE, PAGE_SIZE, False,
                VM_MAPTYPE_NORMAL, VM_PROT_ALL, VM_PROT_ALL, 0,
            )
        )  # fmt: skip

    def drive(self, body: Body) -> Any:
        """To its end; timers fire when nothing else can run."""
        returned: list[Any] = []

        async def thread() -> None:
            returned.append(await body)

        thread_ = self.spawn("test", thread())
        while not thread_.done:
            if not self.ex.runnable:
                assert self.ex.advance(), self.ex.deadlock()
            self.ex.step(self.ex.runnable[0])
            if self.ex.failed is not None:
                assert self.ex.failed.error is not None
                raise self.ex.failed.error
        CURTHREAD[0] = None
        return returned[0]

    def anonymous(self, size: int = SIZE) -> VmObject:
        return vm_object_allocate(self.kernel, OBJT_DEFAULT, size)

    def resident(
        self,
        pindex: int,
        *,
        obj: VmObject | None = None,
        active: bool = False,
        dirty: bool = False,
        act_count: int | None = None,
    ) -> VmPage:
        """A valid page, on a queue and not busy."""
        m: VmPage = self.drive(self._page(pindex, obj or self.file, active, dirty))
        if act_count is not None:
            m.act_count = act_count
        return m

    async def _page(self, pindex: int, obj: VmObject, active: bool, dirty: bool) -> VmPage:
        async with obj.token:
            m = await vm_page_alloc(obj, pindex, VM_ALLOC_NORMAL)
        assert m is not None
        await m.frame.write_bytes(bytes([pindex + 1]) * PAGE_SIZE)
        m.valid = VM_PAGE_BITS_ALL
        if dirty:
            await vm_page_dirty(m)
        await (vm_page_activate(m) if active else vm_page_deactivate(m))
        await vm_page_wakeup(m)
        return m

    def busied(self, m: VmPage) -> VmPage:
        assert self.drive(vm_page_busy_try(m))
        return m

    def stored(self, pindex: int) -> int:
        """The byte the file has at that page."""
        return self.vnode.content[pindex * PAGE_SIZE]

    def actions(self) -> list[tuple[int, str]]:
        """What the scans did, page by page."""
        return [event[1:] for event in self.events if event[0] == "pageout.page"]


def queue_of(m: VmPage) -> str:
    return PQ_NAMES[m.queue]


def allocate(machine: Machine, obj: VmObject, pindex: int, req: int) -> VmPage | None:
    async def body() -> VmPage | None:
        async with obj.token:
            return await vm_page_alloc(obj, pindex, req)

    m: VmPage | None = machine.do(body())
    return m


def counts(machine: Machine) -> tuple[int, ...]:
    """(free, inactive, active, cache, hold)."""
    return tuple(cell.value for cell in machine.kernel.vmstats.queue_count[1:])
