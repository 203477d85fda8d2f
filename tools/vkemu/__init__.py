"""What a user runs and imports: commands, executors, search, oracle, reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkemu.exploration import explore, replay
    from vkemu.testing.explored import explored

__all__ = ["explore", "explored", "replay"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "explored":
        from vkemu.testing import explored as home
    else:
        from vkemu import exploration as home

    found = globals()[name] = getattr(home, name)
    return found
