"""`shadow` against laundering: what a fault writes for the CPU leaves no M in any PTE."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation

from tests.oracle.host import DMAP, Host, drive
from tests.oracle.scenarios import QUIET
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_wait
from vkhost.vm.vm_page_lru import vm_page_activate
from vkhost.vm.vm_pageout_clean import vm_pageout_flush

LEAF = 3  # page of the image: a table


def laundered() -> Host:
    """The daemon writes a page table to the image, the vkernel stores to it through its DMAP."""
    host = Host("shadow", cpus=2, **QUIET)
    guest = host.guest()
    guest.vpte(0)
    guest.setmap()
    user, kern = guest.lwp(0, user=True), guest.lwp(1, user=False)
    drive(kern.store(DMAP + LEAF * 4096 + 8 * 511, 1))
    drive(user.load(0))  # walked: it is known as a table, and write-protected

    async def store() -> None:
        await kern.store(DMAP + LEAF * 4096, 0)

    async def launder() -> None:
        async with guest.image.token:
            m = await vm_page_lookup_busy_wait(guest.image, LEAF, "test")
        assert m is not None
        await vm_page_activate(m)
        await guest.vnode.lock.acquire_exclusive()
        await vm_pageout_flush(host.kernel, [m], 0)
        await guest.vnode.lock.release()

    host.on("kern", kern, store())
    host.execution.spawn("pagedaemon", launder())
    return host


class TwoSwitches:
    """The daemon for so many steps, the store for so many, then each as far as it gets."""

    def __init__(self, daemon: int, store: int, steps: tuple[int, int]) -> None:
        self.order = [daemon] * steps[0] + [store] * steps[1]
        self.rest = [daemon, store]

    def __call__(self, runnable: list[int]) -> int:
        while self.order:
            tid = self.order.pop(0)
            if tid in runnable:
                return tid
        return next(tid for tid in self.rest if tid in runnable)


def test_a_table_is_not_written_while_it_is_laundered() -> None:
    """vm_fault_bypass shares the page with the I/O, whose end calls it clean: the store between the
    two was lost."""
    for laundering in range(4, 20, 2):
        for storing in range(2, 40, 2):
            host = laundered()
            store, daemon = sorted(host.execution.threads)[-2:]
            schedule = TwoSwitches(daemon, store, (laundering, storing))
            try:
                host.execution.run(schedule, 10_000)
                host.oracle.finish()
            except Violation as failure:
                pytest.fail(f"after {laundering} and {storing} steps: {failure}")
            finally:
                host.execution.close()
