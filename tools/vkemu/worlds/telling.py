"""The steps of an execution in the program's own words: which shared places, from which lines.

Only while a failing schedule is taken again; a search does without.
"""

from __future__ import annotations

import dis
import sys
from types import CellType, FrameType, ModuleType
from typing import Any, Final, NamedTuple

from vkemu.worlds.noting import CONTAINERS, Field
from vkemu.worlds.waiting import line_of, own

# What the libraries keep for themselves, whoever goes on.
HIDDEN: Final = frozenset(
    [
        "_abort_func", "turn", "ready", "callbacks", "_fut_waiter", "_callbacks", "fired",
        "_asyncio_future_blocking", "_cancelled_exc", "_exception_tb", "_num_cancels_requested",
    ]
)  # fmt: skip
CANCELS: Final = frozenset(["effectively_cancelled", "_cancel_called", "_must_cancel"])


class Place(NamedTuple):
    """An access: to what, and from where."""

    key: tuple[int, Any]
    text: str
    write: bool
    where: str
    own: bool  # of the program itself, not of a library for it


class Teller:
    """Notes every access of an execution. `steps` has a list of them for each step."""

    def __init__(self) -> None:
        self.steps: list[dict[tuple[int, Any], Place]] = []
        self.keep: list[Any] = []

    def begin(self) -> None:
        self.steps.append({})

    def told(self, obj: Any, field: Field, write: bool) -> None:
        if not self.steps or field in HIDDEN:
            return
        frame = within = sys._getframe(2)
        while frame.f_back is not None and "/vkemu/worlds/" in frame.f_code.co_filename:
            frame = frame.f_back
        text = described(obj, field, frame)
        where = line_of(within)
        here = self.steps[-1]
        known = here.get((id(obj), field))
        if known is None or (write and not known.write):
            here[id(obj), field] = Place((id(obj), field), text, write, where, own(frame))
        self.keep.append(obj)

    def words(self, tids: list[int]) -> list[str]:
        """By step: the places of it that another thread touches too, one of the two writing."""
        writers: dict[Any, set[int]] = {}
        users: dict[Any, set[int]] = {}
        for tid, places in zip(tids, self.steps, strict=True):
            for key, place in places.items():
                users.setdefault(key, set()).add(tid)
                if place.write:
                    writers.setdefault(key, set()).add(tid)
        found = []
        shown = 3  # places of a step
        for places in self.steps:
            shared = [
                place for key, place in places.items() if len(users[key]) > 1 and writers.get(key)
            ]
            shared.sort(key=lambda p: (not p.own, p.where == "?", p.key[1] in CANCELS, not p.write))
            said = [
                f"{'writes' if p.write else 'reads'} {p.text} {p.where}".removesuffix(" ?")
                for p in [p for p in shared if p.own] or shared
            ]
            said = list(dict.fromkeys(said))
            more = f", {len(said) - shown} more" if len(said) > shown else ""
            found.append(", ".join(said[:shown]) + more)
        return found


def described(obj: Any, field: Field, frame: FrameType) -> str:
    """The place as the program calls it, as far as that can be seen from where it is."""
    if isinstance(obj, CellType):
        return variable_of(frame) or "a variable"
    if isinstance(field, tuple) and field[0] == "g":
        return str(field[1])
    if field in {"effectively_cancelled", "_must_cancel"}:
        return "whether it is cancelled"
    if field == "now":
        return "the time"
    if isinstance(obj, CONTAINERS):
        name = name_of(obj, frame) or f"a {type(obj).__name__}"
        if isinstance(field, tuple):
            return f"{name}[{key_text(field[1])}]"
        return name
    if isinstance(obj, ModuleType):
        return f"{obj.__name__}.{field}"
    kind = obj.__name__ if isinstance(obj, type) else type(obj).__name__
    return kind if field in {"*", "at"} else f"{kind}.{field}"


def key_text(key: Any) -> str:
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str):
        return repr(key[1])
    return "..."


def variable_of(frame: FrameType) -> str:
    """Of the closure variable that a hook was just given."""
    name = ""
    for at in dis.get_instructions(frame.f_code):
        if at.offset > frame.f_lasti:
            break
        if at.opname in {"LOAD_CLOSURE", "LOAD_FAST"} and isinstance(at.argval, str):
            name = at.argval
    return name


def name_of(obj: Any, frame: FrameType) -> str:
    local = frame.f_locals
    for name, value in local.items():
        if value is obj and not name.startswith("@"):  # pytest's, in an assert
            return name
    for owner in local.values():
        for name, value in getattr(owner, "__dict__", {}).items():
            if value is obj:
                return f"{type(owner).__name__}.{name}"
    return ""
