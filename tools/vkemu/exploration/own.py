"""Keys that `k` gives by itself, where no name of a user's can come to be."""

from __future__ import annotations

from typing import Final


class Own(str):
    """How such a key begins: it reads as a text, and is equal to none."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Own and str.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


BLOCK: Final = Own("block of")
CANCEL: Final = Own("cancel")
SCOPE: Final = Own("scope")
SELECT: Final = Own("select")
THREAD: Final = Own("thread")
