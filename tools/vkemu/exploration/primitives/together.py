"""Several shared objects that one step touches, in the place of the one that an effect has.

Who waits for one of them is asked again after the step, and the step may itself wait for all of
them: its guard is then `All` of one guard each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vkprotocol.effects import Guard, Shared, Thread, key_text


class States(tuple[Any, ...]):
    """Of the parts, in their order."""

    __slots__ = ()


class Waiters:
    """Those of all the parts."""

    __slots__ = ("parts",)

    def __init__(self, parts: Iterable[Shared]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Thread]:
        for part in self.parts:
            yield from part.waiters or ()

    def __bool__(self) -> bool:
        return any(part.waiters for part in self.parts)

    def append(self, thread: Thread) -> None:
        for part in self.parts:
            if part.waiters is None:
                part.waiters = []
            part.waiters.append(thread)

    def remove(self, thread: Thread) -> None:
        for part in self.parts:
            assert part.waiters is not None
            part.waiters.remove(thread)


class Together(Shared):
    """Two of the same parts are the same object, which adds nothing to what the parts say: of two
    steps that touch the same, one of which writes, the parts are written too."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Shared, ...]) -> None:
        self.key = ", ".join(key_text(part.key) for part in parts)
        self.index = -1
        self.parts = parts

    @property
    def state(self) -> States:
        return States(part.state for part in self.parts)

    @property
    def waiters(self) -> Waiters:  # type: ignore[override]
        return Waiters(self.parts)

    def before(self, states: States, shared: Shared) -> Any:
        """The state of one of them, from those of all."""
        for part, state in zip(self.parts, states, strict=True):
            if part.key == shared.key:
                return state
        raise KeyError(shared.key)


class All:
    """A guard of `Together`: one for each of the parts, or None."""

    __slots__ = ("guards",)

    def __init__(self, guards: tuple[Guard | None, ...]) -> None:
        self.guards = guards

    def __call__(self, states: States) -> bool:
        return all(
            guard is None or guard(state) for guard, state in zip(self.guards, states, strict=True)
        )
