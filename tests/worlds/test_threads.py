"""What other threads of the process do while an async program is searched."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator

import pytest
from vkemu import explore
from vkemu.worlds import asyncio_hooks
from vkemu.worlds.hooks import Hooks

from tests.worlds import programs


@pytest.mark.long
def test_what_other_threads_do_is_no_part_of_the_program() -> None:
    """A test runner's, or those of a client: they run code that is followed, too."""
    over = threading.Event()

    class Other:
        times = 0

        @contextlib.contextmanager
        def held(self) -> Iterator[None]:
            self.times += 1
            yield

    def busy() -> None:
        queue = Other()
        while not over.is_set():
            with queue.held():
                pass

    other = threading.Thread(target=busy)
    interval = sys.getswitchinterval()
    other.start()
    try:
        sys.setswitchinterval(1e-4)
        found = explore(programs.two_locks, backend="trio", stop_on_failure=False)
    finally:
        sys.setswitchinterval(interval)
        over.set()
        other.join()
    assert (found.executions, found.doubt) == (5, "")


def test_the_loop_of_another_thread_goes_on() -> None:
    """That of a client, as Dask's: its modules have what asyncio had before."""
    task, future = asyncio.Task, asyncio.Future

    async def one() -> int:
        await asyncio.sleep(0)
        return 1

    async def work() -> tuple[int, int]:
        made = asyncio.create_task(one())
        assert isinstance(made, task)
        assert isinstance(asyncio.get_running_loop().create_future(), (asyncio.Future, future))
        assert isinstance(future(), asyncio.Future)
        assert type(asyncio.Future()) is future
        return await asyncio.gather(made, asyncio.wait_for(one(), 60))

    loop = asyncio.new_event_loop()
    other = threading.Thread(target=loop.run_forever)
    other.start()
    hooks = Hooks()
    try:
        asyncio_hooks.install(hooks)
        assert list(asyncio.run_coroutine_threadsafe(work(), loop).result(60)) == [1, 1]
    finally:
        hooks.remove()
        loop.call_soon_threadsafe(loop.stop)
        other.join()
        loop.close()
