"""The loop that a program in an asyncio world runs on: asyncio's own base, without a selector."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.futures
import asyncio.tasks
from _thread import get_ident
from typing import TYPE_CHECKING, Any, NoReturn

from vkemu.worlds.asyncio_sockets import Networking
from vkemu.worlds.calls import called
from vkemu.worlds.noting import LOG, OURS, touch
from vkemu.worlds.overriding import followed_methods

if TYPE_CHECKING:
    from vkemu.worlds.asyncio_world import AsyncioWorld

PyTask: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
PyFuture: Any = asyncio.futures._PyFuture  # type: ignore[attr-defined]


def ordered_hash(self: Any) -> int:
    """For objects that are kept in sets: by who made it, so that in every execution a set of them
    has the same order."""
    if not isinstance(getattr(self, "_loop", None), Loop | None):  # of another thread's loop
        return object.__hash__(self)
    return hash(LOG.names.get(id(self)) or LOG.name(self))


class Ours(type):
    """Classes that stand for those of C in the program's threads alone. In another thread, as that
    of a client whose loop goes on meanwhile, they are those of C, which its modules know."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        of_c = vars(cls).get("of_c")  # no subclass has one
        made = cls if of_c is None or get_ident() in OURS else of_c
        return type.__call__(made, *args, **named)

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        of_c = vars(cls).get("of_c")
        return of_c is not None and get_ident() not in OURS and isinstance(instance, of_c)


class Task(PyTask, metaclass=Ours):  # type: ignore[misc]
    of_c = asyncio.Task
    __hash__ = ordered_hash
    __eq__ = object.__eq__
    __init_subclass__ = followed_methods


class Future(PyFuture, metaclass=Ours):  # type: ignore[misc]
    of_c = asyncio.Future
    __hash__ = ordered_hash
    __eq__ = object.__eq__
    __init_subclass__ = followed_methods


BaseEventLoop: Any = asyncio.base_events.BaseEventLoop


# Of whose insides typeshed says nothing.
class Loop(Networking, BaseEventLoop):  # type: ignore[misc]
    def __init__(self, world: AsyncioWorld) -> None:
        super().__init__()
        self.world = world
        self.transports: list[Any] = []
        self._ready = self  # BaseEventLoop appends to it, and counts it

    def append(self, handle: Any) -> None:
        self.world.ready(handle)

    def __len__(self) -> int:
        return 0

    def __del__(self) -> None:
        pass

    def create_task(self, coro: Any, **named: Any) -> Any:
        touch(self, "_task_factory", write=False)
        return super().create_task(coro, **named)

    def set_task_factory(self, factory: Any) -> None:
        touch(self, "_task_factory", write=True)
        super().set_task_factory(factory)

    def set_exception_handler(self, handler: Any) -> None:
        touch(self, "_exception_handler", write=True)
        super().set_exception_handler(handler)

    def get_exception_handler(self) -> Any:
        touch(self, "_exception_handler", write=False)
        return super().get_exception_handler()

    def time(self) -> float:
        touch(self, "now", write=False)
        return float(self.world.now)

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
            called(func, *args)
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
        world: AsyncioWorld = self.world
        world.refuse(what)

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> NoReturn:
        self.refuse("handles signals")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        self.refuse("waits for a real file or socket")

    add_writer = add_reader

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("starts a process")

    subprocess_shell = subprocess_exec

    def remove_reader(self, fd: Any) -> bool:
        return False

    remove_writer = remove_reader

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("opens a socket that is not for TCP")

    create_unix_server = create_datagram_endpoint = create_unix_connection
    sock_recvfrom = sock_sendto = create_unix_connection

    async def connect_read_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("waits for a real file or socket")

    connect_write_pipe = connect_read_pipe

    async def start_tls(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse("makes a connection with TLS")


def settle(future: Any, result: Any, error: BaseException | None) -> None:
    if not future.done():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
