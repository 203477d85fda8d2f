"""Threads that end before the block they were started in."""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import (
    LOOK,
    Body,
    Effect,
    Interrupted,
    Key,
    Shared,
    Step,
    Thread,
    coroutine,
    curthread,
    key_text,
    look_at,
)

from vkemu.exploration.looks import Writing
from vkemu.exploration.own import BLOCK


class Nursery(Shared):
    """Threads that end before the block they were started in; `state` is how many are left.

    A child that fails has the others cancelled, and the block; then the block raises what it
    raised, several as an ExceptionGroup.
    """

    __slots__ = ("_children", "_count", "_errors", "_wait", "block", "k", "parent")

    def __init__(self, key: Key) -> None:
        super().__init__(key, 0)
        self._count = Effect(self, "count", write=True)
        self._wait = Effect(self, "wait", write=False, guard=lambda left: not left)
        self.k: Any = None  # the program
        self.block = Shared((BLOCK, key))  # whether a thread is in it; set without an effect
        self.renew()

    def renew(self) -> None:
        self.parent: Thread | None = None
        self._children: list[Thread] = []
        self._errors: list[Exception] = []

    @property
    def children(self) -> list[Thread]:
        look_at(self)
        return self._children

    @property
    def errors(self) -> list[Exception]:
        """What children have raised."""
        look_at(self)
        return self._errors

    def said(self) -> str:
        """Who is left; for messages."""
        return f"left: {', '.join(child.name for child in self._children if not child.done)}"

    def enter(self, parent: Thread | None) -> None:
        if LOOK[0] is not None:
            LOOK[0](Writing(self.block))
        self.parent = parent

    async def start(self, name: str, body: Any, *args: Any) -> Thread:
        """A step, and a thread more."""
        if curthread() is not self.parent:
            look_at(self.block)
        if self.parent is None:
            raise RuntimeError(f"{key_text(self.key)}: start({name!r}) outside its block")
        await self._add(1)
        thread: Thread = self.k.spawn(name, self._child(body(*args) if callable(body) else body))
        self._children.append(thread)
        return thread

    async def _child(self, coro: Body) -> None:
        try:
            await coro
        except Exception as error:
            await self._add(0)
            self._errors.append(error)
            await self._cancel(curthread())
            await self.k.cancel(self.parent)
        except Interrupted:
            pass
        await self._add(-1)

    async def _cancel(self, but: Thread | None) -> None:
        await self._add(0)
        for child in self._children[:]:
            if child is not but:
                await self.k.cancel(child)

    @coroutine
    def _add(self, more: int) -> Step:
        yield self._count
        self.state += more

    @coroutine
    def _empty(self) -> Step:
        yield self._wait

    async def __aenter__(self) -> Nursery:
        me = curthread()
        if self.parent is not None:
            look_at(self.block)
            raise RuntimeError(
                f"{me.name} enters {key_text(self.key)}, in whose block {self.parent.name} is"
            )
        self.enter(me)
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is GeneratorExit:
            return
        interrupted: BaseException | None = None
        if error is not None:
            await self._cancel(None)
        while True:
            try:
                await self._empty()
                break
            except Interrupted as stopped:  # by a child that failed, or from outside
                if not self._errors:
                    interrupted = stopped
                    await self._cancel(None)
        self.enter(None)
        errors = self._errors
        if isinstance(error, Exception):
            errors = [error, *errors]
        if len(errors) > 1:
            raise ExceptionGroup("nursery", errors)
        if errors and errors[0] is not error:
            raise errors[0] from None
        if interrupted is not None:
            raise interrupted
