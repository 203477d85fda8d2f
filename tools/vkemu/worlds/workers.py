"""Functions that a program calls in worker threads, one of them running at a time.

Each is a real thread, so that it is outside of the event loop as it expects to be; but it runs only
while the world waits for it, until it is done or calls back into the loop and waits for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vkemu.worlds.hooks import Hooks
from vkemu.worlds.noting import HERE, OURS, thread_starts


class GivenUp(BaseException):
    """The execution is over, and the thread not."""


class Worker:
    """`run` is what it does; `drop` is called instead when it never comes to that."""

    def __init__(self, run: Callable[[], object], drop: Callable[[], object] | None = None) -> None:
        self.run = run
        self.drop = drop
        self.go = threading.Semaphore(0)
        self.back = threading.Semaphore(0)
        self.until: Callable[[], bool] | None = None
        self.done = False
        self.giving_up = False
        self.thread: threading.Thread | None = None
        self.noted = False  # what it touches

    def ready(self) -> bool:
        return self.until is None or self.until()

    def step(self) -> bool:
        """Let it run. True when it is done."""
        self.until = None
        self.noted = HERE.on
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, daemon=True)
            OF_THREAD[self.thread] = self
            self.thread.start()
        else:
            self.go.release()
        self.back.acquire()
        return self.done

    def _run(self) -> None:
        OURS.add(threading.get_ident())
        HERE.on = self.noted
        try:
            self.run()
        except GivenUp:
            pass
        finally:
            self.done = True
            OF_THREAD.pop(threading.current_thread(), None)
            OURS.discard(threading.get_ident())
            self.back.release()

    def wait(self, until: Callable[[], bool]) -> None:
        """Called in the thread: it can go on once `until` holds."""
        self.until = until
        self.back.release()
        self.go.acquire()
        HERE.on = self.noted
        if self.giving_up:
            raise GivenUp

    def give_up(self) -> None:
        if self.thread is None and self.drop is not None:
            self.drop()
        if self.thread is not None and not self.done:
            self.giving_up = True
            self.noted = False
            self.go.release()
            self.back.acquire()


OF_THREAD: dict[threading.Thread, Worker] = {}


def current() -> Worker | None:
    return OF_THREAD.get(threading.current_thread())


def notice_others(hooks: Hooks) -> None:
    """Threads that start meanwhile and are none of these."""

    def start(self: threading.Thread) -> None:
        if self not in OF_THREAD:
            thread_starts()
        starts(self)

    starts = hooks.replace(threading.Thread, "start", start)
