"""The strategies by name. Each is imported when it is asked for."""

from __future__ import annotations

from typing import Any, Final

from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.result import StrategyError

NAMES: Final = (
    "random", "pct", "pos", "urw", "dfs", "bounded", "source-dpor", "dpor", "portfolio",
)  # fmt: skip
NUMBERED: Final = {"pct": 1, "bounded": 0}  # name:N is allowed, and the least N


def strategy_named(name: str, seed: int, objects: Objects) -> Any:
    """A new strategy: one of NAMES; `pct:N` for depth N, `bounded:N` for N preemptions."""
    stem, colon, text = name.partition(":")
    number = None
    if colon:
        if stem not in NUMBERED or not text.isdecimal() or int(text) < NUMBERED[stem]:
            raise StrategyError(f"no strategy {name!r}: expected pct:N or bounded:N")
        number = int(text)
    match stem:
        case "dpor":
            from vkemu.exploration.strategies.dpor import Dpor

            return Dpor(objects)
        case "source-dpor":
            from vkemu.exploration.strategies.source_dpor import SourceDpor

            return SourceDpor(objects)
        case "dfs":
            from vkemu.exploration.strategies.dfs import Dfs

            return Dfs()
        case "bounded":
            from vkemu.exploration.strategies.bounded import Bounded

            return Bounded(number)
        case "portfolio":
            from vkemu.exploration.strategies.portfolio import Portfolio

            members = ("dpor", "pct", "pos", "random")
            return Portfolio([strategy_named(member, seed, objects) for member in members])
        case _:
            return sampling_named(stem, name, seed, number)


def sampling_named(stem: str, name: str, seed: int, number: int | None) -> Any:
    match stem:
        case "random":
            from vkemu.exploration.strategies.random_walk import RandomWalk

            return RandomWalk(seed)
        case "pct":
            from vkemu.exploration.strategies.pct import Pct

            return Pct(seed) if number is None else Pct(seed, number)
        case "pos":
            from vkemu.exploration.strategies.pos import Pos

            return Pos(seed)
        case "urw":
            from vkemu.exploration.strategies.urw import Urw

            return Urw(seed)
        case _:
            raise StrategyError(f"no strategy {name!r}: expected one of {', '.join(NAMES)}")
