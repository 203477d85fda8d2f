"""`vkemu log export`: the events for other people's viewers.

Virtual time stands still while a run takes its steps, so the time axis of the exports is the
event's number, one microsecond each; `t` is among the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO, Final, TypeAlias

from vkemu.inspect.export import chrome, mermaid, perfetto, shiviz
from vkemu.record.narrate import Event

Export: TypeAlias = Callable[[Iterable[Event], IO[bytes]], None]

FORMATS: Final[dict[str, Export]] = {
    "perfetto": perfetto.export,
    "chrome": chrome.export,
    "shiviz": shiviz.export,
    "mermaid": mermaid.export,
}
