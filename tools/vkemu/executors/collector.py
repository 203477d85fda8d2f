"""Python's cyclic collector, kept out of what is being timed or would only be looked at."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Hundreds of thousands of objects, all of them needed: the collector would only look at
    them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # What was made counts as old, or it would be looked at now, all of it.
        gc.freeze()
        gc.unfreeze()
        if enabled:
            gc.enable()
