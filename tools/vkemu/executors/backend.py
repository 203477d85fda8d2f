"""The event loops under a live executor: trio, asyncio, and uvloop for it if installed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Final, TypeVar

import anyio

T = TypeVar("T")

BACKENDS: Final = ("trio", "asyncio")


def on_backend(backend: str, main: Callable[[], Awaitable[T]]) -> T:
    """anyio.run, with uvloop under asyncio where it is installed."""
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}, there are {', '.join(BACKENDS)}")
    options = {}
    if backend == "asyncio" and find_spec("uvloop") is not None:
        options["use_uvloop"] = True
    try:
        return anyio.run(main, backend=backend, backend_options=options)
    except BaseExceptionGroup as group:  # Ctrl-C came while a task of a nursery ran
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None
