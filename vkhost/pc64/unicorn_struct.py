"""Fields of unicorn's engine that have no accessor, found by running.

The one place in the structure that holds what was made to be there, each time it is made.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable


def counter_offset(struct: int, loop: Callable[[int], None]) -> int:
    """Where the engine counts instructions: n + 1 after n of them."""
    return _offset(struct, loop, {37: 38, 1009: 1010, 211: 212})


def address_offset(struct: int, miss: Callable[[int], None]) -> int:
    """Where it has the address of the last access that its TLB was not filled for."""
    return _offset(struct, miss, {at: at for at in (0x1234_5678_9ABC, 0x2345_6789_ABCD)})


def _offset(struct: int, make: Callable[[int], None], values: dict[int, int]) -> int:
    found: set[int] | None = None
    for argument, value in values.items():
        make(argument)
        here = set(_places(ctypes.string_at(struct, 2048), value.to_bytes(8, "little")))
        found = here if found is None else found & here
    assert found is not None
    assert len(found) == 1, "unicorn: a field of its engine is not found"
    return found.pop()


def _places(raw: bytes, value: bytes) -> Iterable[int]:
    return (at for at in range(0, len(raw), 8) if raw[at : at + 8] == value)
