"""What the kernels' plain fields say about their locks, enforced while a program is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Build = Callable[[Any], object]


def enforcing(
    explore: Callable[Concatenate[Build, P], T],
) -> Callable[Concatenate[Build, P], T]:
    """Called with check=True, `explore` runs with every declaration of `guarded_by` enforced."""

    @wraps(explore)
    def enforced(program: Build, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not kwargs.get("check"):
            return explore(program, *args, **kwargs)
        with guards(program):
            return explore(program, *args, **kwargs)

    return enforced


@contextmanager
def guards(program: Build) -> Iterator[None]:
    from vkemu.exploration.program import Program
    from vkhost.guarded import GUARDED, _Checked, checking

    Program(program, {}).begin().close()  # so that it has imported the classes it uses
    if any(isinstance(vars(cls).get(field), _Checked) for cls, field, _, _ in GUARDED):
        yield  # a test of the kernels enforces them already
        return
    with checking():
        yield
