"""The outcome of a litmus test, printed the way herd7 prints one.

Alglave, Maranget, Tautschnig, "Herding cats", TOPLAS 2014, and the herdtools7 manual: the states
with how often each was reached, whether the condition was met never, sometimes or always, and how
many executions are witnesses. Here a count is of Mazurkiewicz traces when the strategy is dpor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vkemu.litmus.condition import Condition

State = tuple[tuple[str, str], ...]  # (atom, value) in the order the test lists its atoms
Values = Mapping[str, int | None]


@dataclass(slots=True)
class Outcomes:
    """Final states of the executions of one test."""

    forbidden: tuple[Condition, ...] = ()
    allowed: tuple[Condition, ...] = ()
    required: tuple[Condition, ...] = ()
    states: Counter[State] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)  # violations, by message
    positive: int = 0  # executions that met a condition of interest
    # A state or violation -> the schedule of an execution that ended so, where they are kept.
    witnesses: dict[State | str, Sequence[int]] | None = None

    @property
    def kind(self) -> str:
        if self.forbidden:
            return "Forbidden"
        return "Required" if self.required else "Allowed"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return self.forbidden or self.required or self.allowed

    def wrong(self, values: Values) -> str | None:
        """Why a final state is not permitted, or None."""
        for condition in self.forbidden:
            if condition.holds(values.__getitem__):
                return f"forbidden outcome: {condition.text} ({text_of(state_of(values))})"
        permitted = (*self.allowed, *self.required)
        if self.allowed and not any(c.holds(values.__getitem__) for c in permitted):
            return f"outcome outside the allowed ones: {text_of(state_of(values))}"
        return None

    def count(self, values: Values) -> None:
        """One more execution ended in this state."""
        self.count_state(state_of(values), 1)

    def count_state(self, state: State, times: int) -> None:
        self.states[state] += times
        if any(c.holds(lookup_in(state).__getitem__) for c in self.conditions):
            self.positive += times

    def missing(self) -> list[Condition]:
        """Required outcomes that no recorded execution reached."""
        return [c for c in self.required if not self.met(c)]

    def met(self, condition: Condition) -> int:
        """By how many recorded executions."""
        return sum(
            count
            for state, count in self.states.items()
            if condition.holds(lookup_in(state).__getitem__)
        )

    def nearest(self, condition: Condition) -> list[str]:
        """Of one that no execution met: which parts of it none did, and the state with most."""
        parts = condition.parts
        held = {
            state: [part.holds(lookup_in(state).__getitem__) for part in parts]
            for state in sorted(self.states)
        }
        if not held:
            return []
        never = [p.text for p, *of in zip(parts, *held.values(), strict=True) if not any(of)]
        best = max(held, key=lambda state: (sum(held[state]), self.states[state]))
        lacks = [part.text for part, holds in zip(parts, held[best], strict=True) if not holds]
        lines = [f"never:   {text}" for text in never if len(parts) > 1]
        without = f", lacks {' and '.join(lacks)}" if len(parts) > 1 else ""
        count = self.states[best]
        plural = "s" * (count > 1)
        return [*lines, f"nearest: {text_of(best)} ({count} execution{plural}{without})"]

    def observation(self) -> str:
        total = self.states.total()
        if not self.positive:
            return "Never"
        return "Always" if self.positive == total else "Sometimes"


def state_of(values: Values) -> State:
    return tuple((atom, "-" if v is None else str(v)) for atom, v in values.items())


def lookup_in(state: State) -> dict[str, int | None]:
    return {atom: None if value == "-" else int(value) for atom, value in state}


def text_of(state: State) -> str:
    return "; ".join(f"{atom}={value}" for atom, value in state) or "(no atoms)"


def render(
    name: str,
    outcomes: Outcomes,
    *,
    verdict: str,
    exhausted: bool,
    at_failure: bool = False,
    replay: Callable[[Sequence[int]], str] = str,
) -> str:
    """The block herd7 users know, ending in our verdict. Byte-stable for equal outcomes. `replay`:
    the command that takes a witness again."""
    lines = [f"Test {name} {outcomes.kind}", f"States {len(outcomes.states)}"]
    kept = outcomes.witnesses or {}
    for state, count in sorted(outcomes.states.items()):
        met = any(c.holds(lookup_in(state).__getitem__) for c in outcomes.conditions)
        lines.append(f"{count:<8}{'*' if met else ':'}> {text_of(state)}")
        lines += [f"{'':10} {replay(kept[state])}"] if state in kept else []
    for message, count in sorted(outcomes.broken.items()):
        lines.append(f"Broken {count}: {message}")
        lines += [f"{'':10} {replay(kept[message])}"] if message in kept else []
    total = outcomes.states.total()
    lines.append({"pass": "Ok", "fail": "No", "unknown": "Unknown"}[verdict])
    lines.append("Witnesses")
    lines.append(f"Positive: {outcomes.positive} Negative: {total - outcomes.positive}")
    text = " or ".join(f"({c.text})" for c in outcomes.conditions) or "(no violation)"
    broken = verdict == "fail" and not outcomes.conditions
    lines.append(f"Condition {'violated' if broken else outcomes.kind.lower()} {text}")
    if outcomes.kind == "Forbidden":
        lines += [f"Required ({c.text}) {outcomes.met(c) or 'never'}" for c in outcomes.required]
    lines.append(
        f"Observation {name} {outcomes.observation()} {outcomes.positive} "
        f"{total - outcomes.positive}"
    )
    how = "first failure: the search stopped there" if at_failure else "bounded"
    lines.append(f"Verdict {verdict} ({'exhausted' if exhausted else how})")
    return "\n".join(lines)
