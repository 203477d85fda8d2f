"""The loop that a program in an asyncio world runs on: asyncio's own base, without a selector."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.futures
import asyncio.tasks
from typing import TYPE_CHECKING, Any, NoReturn

from vkemu.worlds.waiting import calling

if TYPE_CHECKING:
    from vkemu.worlds.asyncio_world import AsyncioWorld

PyTask: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
PyFuture: Any = asyncio.futures._PyFuture  # type: ignore[attr-defined]


BaseEventLoop: Any = asyncio.base_events.BaseEventLoop


class Loop(BaseEventLoop):  # type: ignore[misc] # of whose insides typeshed says nothing
    def __init__(self, world: AsyncioWorld) -> None:
        super().__init__()
        self.world = world
        self._ready = self  # BaseEventLoop appends to it, and counts it

    def append(self, handle: Any) -> None:
        self.world.ready(handle)

    def __len__(self) -> int:
        return 0

    def __del__(self) -> None:
        pass

    def time(self) -> float:
        from vkemu.worlds.noting import touch

        touch(self, "now", write=False)
        return self.world.now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        self.world.timer(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        if delay is None:
            raise TypeError("delay must not be None")
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        self.world.lapse(handle)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """The function is a thread of its own, at any time from now on."""
        from vkemu.worlds.instrumenting import instrument_late

        instrument_late(func)
        future = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon(settle, future, None, error)
            else:
                self.call_soon(settle, future, result, None)

        self.world.job(run)
        return future

    def is_running(self) -> bool:
        return True

    def call_exception_handler(self, context: Any) -> None:
        self.world.notes.append(context)

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self, *args: Any) -> None:
        pass

    def run_forever(self) -> NoReturn:
        raise RuntimeError("This event loop is already running")

    # -- the real world ----------------------------------------------------------------------------

    def refuse(self, what: str) -> NoReturn:
        self.world.refused = f"the program {what}, which is not in this world, at {calling()}"
        raise RuntimeError(what)

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> NoReturn:
        self.refuse("handles signals")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        self.refuse("waits for a real file or socket")

    add_writer = add_reader

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("starts a process")

    subprocess_shell = subprocess_exec

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("opens a real connection")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("opens a real port")

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("opens a real connection")

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("opens a datagram socket")

    async def sock_recv(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("uses a real socket")

    sock_sendall = sock_connect = sock_accept = sock_recv_into = sock_recv


def settle(future: Any, result: Any, error: BaseException | None) -> None:
    if not future.done():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
