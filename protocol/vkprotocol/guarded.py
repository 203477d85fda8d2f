"""Which lock guards a plain field, said on the class and enforced on demand.

    @guarded_by("token", "memq", "dead")
    class VmObject: ...

Within `checking()`, a kernel thread that touches `obj.memq` without `obj.token` in its list of held
locks gets Unguarded. Outside it the declaration costs nothing: the attributes are plain again.

What is checked is the attribute, not what is in it: a list got under the lock and used after it is
not noticed, nor is `obj.memq[k] = m` told from a read. Assignment under a shared lock is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getattr_static
from typing import Any, Final, TypeVar

from vkprotocol.effects import CURTHREAD, Thread, key_text

T = TypeVar("T", bound=type)

# guard(object, thread, writing): may the thread touch the field?
Guard = Callable[[Any, Thread, bool], bool]

# Filled as classes are defined; the same in every run.
GUARDED: Final[list[tuple[type, str, str, Guard]]] = []


class Unguarded(AssertionError):
    """A field was touched without the lock that guards it. Our bug, and a data race."""


def guarded_by(lock: str, *fields: str, guard: Guard | None = None) -> Callable[[T], T]:
    """Declare that `fields` are only touched with the lock in attribute `lock` held ("self": the
    object is its own lock). `guard` replaces the test; `lock` is then only its name."""

    def declare(cls: T) -> T:
        for field in fields:
            GUARDED.append((cls, field, lock, guard or _holds(lock)))
        return cls

    return declare


def _holds(lock: str) -> Guard:
    def holds(obj: Any, thread: Thread, writing: bool) -> bool:
        wanted = obj if lock == "self" else getattr(obj, lock)
        assert thread.held is not None
        if not any(held is wanted for held in thread.held):
            return False
        # (owner, ...) is a lock that can be shared: to write, be the owner.
        return not writing or not isinstance(wanted.state, tuple) or wanted.state[0] == thread.tid

    return holds


class _Checked:
    """Stands in for a field of a class, and gets and sets it where it really is."""

    def __init__(self, cls: type, field: str, lock: str, guard: Guard) -> None:
        self.field = field
        self.lock = lock
        self.guard = guard
        # The member descriptor of a class with __slots__; it may be a base class's.
        self.slot = getattr_static(cls, field, None)

    def check(self, obj: Any, writing: bool) -> None:
        thread = CURTHREAD[0]
        if thread is None or thread.held is None or self.guard(obj, thread, writing):
            return
        held = ", ".join(key_text(lock.key) for lock in thread.held) or "nothing"
        verb = "writes" if writing else "reads"
        raise Unguarded(
            f"{thread.name} {verb} {type(obj).__name__}.{self.field} "
            f"without {self.lock} (holds {held})"
        )

    def __get__(self, obj: Any, cls: type) -> Any:
        if obj is None:
            return self
        self.check(obj, False)
        return self.fetch(obj)

    def fetch(self, obj: Any) -> Any:
        if self.slot is not None:
            return self.slot.__get__(obj, type(obj))
        try:
            return obj.__dict__[self.field]
        except KeyError:
            raise AttributeError(self.field) from None

    def __set__(self, obj: Any, value: Any) -> None:
        try:
            self.fetch(obj)
        except AttributeError:
            pass  # being constructed: nobody else knows it
        else:
            self.check(obj, True)
        if self.slot is not None:
            self.slot.__set__(obj, value)
        else:
            obj.__dict__[self.field] = value


@contextmanager
def checking() -> Iterator[None]:
    """Enforce every declaration, for threads that keep a list of held locks
    (`Execution.checking`)."""
    if any(isinstance(cls.__dict__.get(field), _Checked) for cls, field, _, _ in GUARDED):
        raise RuntimeError("already checking")
    installed = []
    for cls, field, lock, guard in GUARDED:
        checked = _Checked(cls, field, lock, guard)
        installed.append((cls, field, checked))
        setattr(cls, field, checked)
    try:
        yield
    finally:
        for cls, field, checked in installed:
            delattr(cls, field)
            if getattr_static(cls, field, None) is not checked.slot:
                setattr(cls, field, checked.slot)
