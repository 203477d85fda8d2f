"""What the kernels' plain fields say about their locks, enforced while a program is checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from vkprotocol.effects import Thread
from vkprotocol.step import MADE

from vkemu.executors.deadline import heeding
from vkemu.exploration.forgotten import noticing

P = ParamSpec("P")
T = TypeVar("T")
Build: TypeAlias = Callable[[Any], object]
Guard: TypeAlias = Callable[[Any, Thread, bool], bool]


def enforcing(
    explore: Callable[Concatenate[Build, P], T],
) -> Callable[Concatenate[Build, P], T]:
    """Called with check=True, `explore` runs with every declaration of `guarded_by` enforced; and a
    forgotten `await` is noticed, whatever it is called with, as is Ctrl-C."""

    @wraps(explore)
    def enforced(program: Build, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with heeding(), noticing(), guards(program) if kwargs.get("check") else nullcontext():
                return explore(program, *args, **kwargs)
        finally:
            MADE[0] = None

    return enforced


@contextmanager
def guards(program: Build) -> Iterator[None]:
    from vkprotocol.guarded import GUARDED, _Checked, checking

    from vkemu.exploration.program import Program

    Program(program, {}).begin().close()  # so that it has imported the classes it uses
    if any(isinstance(vars(cls).get(field), _Checked) for cls, field, _, _ in GUARDED):
        yield  # a test of the kernels enforces them already
        return
    with checking():
        for cls, field, _, _ in GUARDED:
            checked = vars(cls)[field]
            checked.guard = _or_from_outside(checked.guard)
        yield


def _or_from_outside(guard: Guard) -> Guard:
    """vkemu's own code may look: a litmus test finds the page it is about to talk of."""

    def allows(obj: Any, thread: Thread, writing: bool) -> bool:
        if guard(obj, thread, writing):
            return True
        # Above: the descriptor's check and __get__, then who touches the field.
        toucher = sys._getframe(3).f_globals
        return not writing and str(toucher.get("__name__", "")).startswith("vkemu.")

    return allows
