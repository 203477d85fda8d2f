"""report.html: the run as one self-contained page that opens offline.

The page's own files are beside this module, in `page/`; what differs from run to run is one JSON
document, described at the top of `page/report.js`.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from vkprotocol.effects import key_text
from vkprotocol.param import PAGE_SIZE

from vkemu.record.machine import Machine
from vkemu.record.narrate import Event
from vkemu.record.slices import lock_of
from vkemu.report.causes import causes
from vkemu.report.failure import Access, Failure, frames_of
from vkemu.report.recording import Step, switches
from vkemu.report.relevance import WEAK, Row, rows_of

PAGE: Final = Path(__file__).parent / "page"
# Event that takes, event that drops, what it is drawn as.
_HOLDS: Final = (
    ("ilock.enter", "ilock.exit", "ilock"),
    ("map.lock", "map.unlock", "lock"),
    ("page.busy", "page.unbusy", "busy"),
)
_TAKES: Final = frozenset({"acquire", "shared", "exclusive"})


def _json(content: dict[str, Any]) -> str:
    try:
        return orjson.dumps(content).decode()
    except TypeError:  # it names a file whose name is no UTF-8
        return json.dumps(content)


def render(failure: Failure) -> str:
    """The whole page."""
    run = _json(document(failure)).replace("</", "<\\/").replace("<!--", "<\\!--")
    page = (PAGE / "report.html").read_text("utf-8")
    parts = {
        "@TITLE@": html.escape(f"vkemu: {failure.message}"),
        "@CSS@": (PAGE / "report.css").read_text("utf-8"),
        "@JS@": (PAGE / "report.js").read_text("utf-8"),
        "@RUN@": run,
    }
    for name, text in parts.items():
        page = page.replace(name, text)
    return page


def document(failure: Failure) -> dict[str, Any]:
    """What `report.js` draws."""
    rows = by_step(failure)
    actors = lanes_of(failure, rows)
    # What the set-up did stands in the first lane; it has no lane of its own.
    lanes = {actor: i for i, actor in enumerate(actors or ["kernel"])}
    words = Words()
    machine = Machine()
    befores = causes(failure.steps)
    steps = [
        step_document(step, lanes, befores[step.number], rows[step.number], machine, words)
        for step in failure.steps
    ]
    bracket = failure.bracket
    window = None if bracket is None else bracket.as_dict()
    return {
        "message": failure.message,
        "invariant": failure.invariant,
        "facts": facts(failure, len(actors)),
        "accesses": [access_document(a, rows.get(a.step, [])) for a in failure.accesses],
        "window": window,
        "frame": failure.frame,
        "relevant": any(row.weight >= WEAK for some in rows.values() for row in some),
        "actors": list(lanes),
        "bars": list(bars(failure.steps, lanes)),
        "steps": steps,
        "words": list(words.numbers),
    }


def lanes_of(failure: Failure, rows: dict[int, list[Row]]) -> list[str]:
    """The actors from left to right: as they come while there are few, else those that matter."""
    actors = list(dict.fromkeys(step.actor for step in failure.steps if step.number))
    lanes_seen = 5  # what fits on a screen
    if len(actors) <= lanes_seen:
        return actors
    telling: Counter[str] = Counter()
    for some in rows.values():
        telling.update(row.actor for row in some if row.weight >= WEAK)
    first = [access.actor for access in failure.accesses]
    return sorted(
        actors, key=lambda actor: (actor not in first, -telling[actor], actors.index(actor))
    )


class Words:
    """Every text once: a long run says the same few thousand things. Null is -1."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str | None) -> int:
        return -1 if text is None else self.numbers.setdefault(text, len(self.numbers))


def access_document(access: Access, rows: list[Row]) -> dict[str, Any]:
    row = next((i for i, row in enumerate(rows) if row.event is access.event), 0)
    return {
        "role": access.role, "actor": access.actor, "step": access.step, "row": row,
        "what": access.what, "function": access.function, "where": access.where,
    }  # fmt: skip


def facts(failure: Failure, actors: int) -> list[list[Any]]:
    """Name, text, and whether it is something to copy."""
    steps = len(failure.steps) - 1
    counts = f"{steps} steps, {actors} actors, {switches(failure.steps)} context switches"
    rows: list[list[Any]] = [["run", counts, False]]
    if failure.context:
        rows.append(["of", ", ".join(f"{k} {v}" for k, v in failure.context.items()), False])
    if failure.frame is not None and failure.owners is not None:
        then, now = failure.owners
        rows.append(["owner", f"page {failure.frame}: then {then}, now {now}", False])
    if failure.bracket is not None:
        rows.append(["window", str(failure.bracket), False])
    if failure.width is not None:
        rows.append(["moved", str(failure.width), False])
    if failure.closed_by:
        rows.append(["closed by", "; ".join(failure.closed_by), False])
    rows += [["", line.strip(), False] for line in failure.detail[:12]]
    if failure.replay:
        rows.append(["replay", failure.replay, True])
    return rows


def by_step(failure: Failure) -> dict[int, list[Row]]:
    """The rows of each step."""
    rows: dict[int, list[Row]] = {step.number: [] for step in failure.steps}
    for row in rows_of(failure):
        rows[row.step.number].append(row)
    return rows


def step_document(
    step: Step,
    lanes: dict[str, int],
    befores: list[int],
    rows: list[Row],
    machine: Machine,
    words: Words,
) -> list[Any]:
    """A step, as the top of `report.js` says."""
    lane = lanes.get(step.actor, 0)
    changes = [
        [words(thing), words(attribute), words(before), words(after)]
        for event in step.events
        for thing, attribute, before, after in machine.apply(event)
    ]
    place = words(f"{step.function}  {step.where}".strip())
    guest = words(guest_of(step))
    drawn = [row_document(row, lanes.get(row.actor, lane), words) for row in rows]
    return [lane, step.t, words(step.effect), place, befores, drawn, changes, guest]


def row_document(row: Row, lane: int, words: Words) -> list[Any]:
    event = row.event
    if event is None:
        return [words(row.text), row.weight, [], [], lane, words("")]
    place = words(f"{event.get('function', '')}  {event.get('where', '')}".strip())
    about = [sorted(frames_of(event)), list(addresses(event))]
    return [words(row.text), row.weight, *about, lane, place]


def addresses(event: Event) -> Iterator[tuple[int, int]]:
    """The virtual ranges an event is about."""
    if "start" in event and "end" in event:
        yield event["start"], event["end"]
    va = event.get("va", event.get("addr"))
    if isinstance(va, int) and va >= 0:
        yield va & -PAGE_SIZE, (va & -PAGE_SIZE) + PAGE_SIZE


def guest_of(step: Step) -> str:
    """The guest of a step: what its events say, else what its actor's name does."""
    for event in step.events:
        if event.get("guest"):
            return str(event["guest"])
    if "@" in step.actor:
        return step.actor.partition("@")[2]
    # `lwp g1.0` and `g1.vcpu0` work for g1.
    return step.actor.removeprefix("lwp ").rpartition(".")[0]


def bars(steps: list[Step], lanes: dict[str, int]) -> Iterator[list[Any]]:
    """[lane, kind, label, from, to] for every lock, interlock and busy page an actor holds."""
    held: dict[tuple[str, str, str], int] = {}
    for step in steps:
        for kind, what, takes in holds(step):
            key = step.actor, kind, what
            if takes:
                held.setdefault(key, step.number)
            elif key in held:
                yield [lanes.get(step.actor, 0), kind, what, held.pop(key), step.number]
    end = len(steps) - 1
    for (actor, kind, what), start in held.items():
        if start:
            yield [lanes.get(actor, 0), kind, what, start, end]


def holds(step: Step) -> Iterator[tuple[str, str, bool]]:
    """(kind, name, does it take it) for what the step takes and drops."""
    named = False
    for event in step.events:
        for take, drop, kind in _HOLDS:
            if event["event"] in {take, drop}:
                what = lock_of(event) or f"page {event.get('pfn')} busy"
                named = True
                yield kind, what, event["event"] == take
    if named or not step.op:
        return
    if step.op in _TAKES:
        yield "lock", key_text(step.key), True
    elif step.op == "release":
        yield "lock", key_text(step.key), False
