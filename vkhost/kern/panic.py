"""Kernel panics: what an INVARIANTS kernel would have stopped for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


class Panic(Exception):
    """The host kernel found its own state impossible. `message` is the console line.

    Not a defect of the emulator by itself: several windows end in exactly this.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def panic(kernel: Kernel, message: str) -> NoReturn:
    """kern_shutdown.c:panic."""
    kernel.emit("panic", message)
    raise Panic(message)


def kkassert(kernel: Kernel, truth: object, message: str) -> None:
    """KASSERT/KKASSERT of an INVARIANTS kernel."""
    if not truth:
        panic(kernel, message)
