"""What a user runs and imports: commands, executors, search, oracle, reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkemu.exploration import explore, replay

__all__ = ["explore", "replay"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vkemu import exploration

    found = globals()[name] = getattr(exploration, name)
    return found
