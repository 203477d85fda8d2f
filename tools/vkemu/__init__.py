"""What a user runs and imports: commands, executors, search, oracle, reports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkemu.testing.explored import explored
    from vkemu.workers.cluster import DaskWorkers
    from vkemu.worlds.exploring import explore, replay

__all__ = ["DaskWorkers", "explore", "explored", "replay"]

# Found when first asked for, so that `import vkemu` stays light.
_HOMES = {
    "DaskWorkers": "vkemu.workers.cluster",
    "explore": "vkemu.worlds.exploring",
    "explored": "vkemu.testing.explored",
    "replay": "vkemu.worlds.exploring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found
