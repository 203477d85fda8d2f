"""Walking one colour of a page queue with a marker. DragonFly vm_pageout.c, the loops of the scans.

The queue is locked only while the marker moves. What a scan does to a page it does with the page
hard-busied and nothing else held: no queue spinlock, no object token, no map lock, no ilock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_try
from vkhost.vm.vm_page_queue import PageMarker, QueueLink

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

MAXSCAN_DIVIDER: Final = 10  # a pass looks at a tenth of each sub-queue


def pqaverage(n: int, colors: int) -> int:
    """PQAVERAGE: each sub-queue's share of n, sized so that half of them suffice."""
    half = max(colors // 2, 1)
    if n >= 0:
        return (n + colors - 1) // half + 1
    return -((colors - 1 - n) // half) - 1


class PageScan:
    """The marker of one scan of one sub-queue.

    Usage: `start`, then `busy_next` until it gives None, then `finish`. The queue is unlocked in
    between, so the pages around the marker come and go.
    """

    def __init__(self, kernel: Kernel, kind: int, color: int) -> None:
        self.queue = kernel.queues.of(kind, color)
        self.marker = PageMarker()
        self.left = 0

    async def start(self, divider: int = MAXSCAN_DIVIDER) -> None:
        """Put the marker at the head; at most lcnt / divider + 1 links will be looked at."""
        async with self.queue:
            self.queue.insert_head(self.marker)
            self.left = self.queue.lcnt // divider + 1

    async def busy_next(self) -> VmPage | None:
        """The next page that could be busied, or None at the end. Busy pages stay where they are
        in the queue and are passed over."""
        async with self.queue:
            while (link := self.marker.next) is not None and self.left > 0:
                self.left -= 1
                self._step_over(link)
                if isinstance(link, VmPage) and await vm_page_busy_try(link):
                    return link
        return None

    def _step_over(self, link: QueueLink) -> None:
        self.queue.remove(self.marker)
        self.queue.insert_after(link, self.marker)

    async def finish(self) -> None:
        async with self.queue:
            self.queue.remove(self.marker)
