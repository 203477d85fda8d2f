"""Interleaving exploration: `explore` and `replay`, and what they say.

Every name is loaded when it is first asked for: a search starts in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vkemu.exploration.exploring import explore
    from vkemu.exploration.program import Program
    from vkemu.exploration.replaying import replay
    from vkemu.exploration.result import (
        ExplorationError,
        Failure,
        NondeterminismError,
        Result,
        TokenError,
    )
    from vkemu.exploration.strategies.strategy import ABANDON, Strategy

__all__ = [
    "ABANDON",
    "ExplorationError",
    "Failure",
    "NondeterminismError",
    "Program",
    "Result",
    "Strategy",
    "TokenError",
    "explore",
    "replay",
]

_HOMES = {
    "ABANDON": "vkemu.exploration.strategies.strategy",
    "ExplorationError": "vkemu.exploration.result",
    "Failure": "vkemu.exploration.result",
    "NondeterminismError": "vkemu.exploration.result",
    "Program": "vkemu.exploration.program",
    "Result": "vkemu.exploration.result",
    "Strategy": "vkemu.exploration.strategies.strategy",
    "TokenError": "vkemu.exploration.result",
    "explore": "vkemu.exploration.exploring",
    "replay": "vkemu.exploration.replaying",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(home), name)
    globals()[name] = found
    return found
