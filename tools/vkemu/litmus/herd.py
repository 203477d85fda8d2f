"""The outcome of a litmus test, printed the way herd7 prints one.

Alglave, Maranget, Tautschnig, "Herding cats", TOPLAS 2014, and the herdtools7 manual: the states
with how often each was reached, whether the condition was met never, sometimes or always, and how
many executions are witnesses. Here a count is of Mazurkiewicz traces when the strategy is dpor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
        return [
            c
            for c in self.required
            if not any(c.holds(lookup_in(state).__getitem__) for state in self.states)
        ]

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


def render(name: str, outcomes: Outcomes, *, verdict: str, exhausted: bool) -> str:
    """The block herd7 users know, ending in our verdict. Byte-stable for equal outcomes."""
    lines = [f"Test {name} {outcomes.kind}", f"States {len(outcomes.states)}"]
    for state, count in sorted(outcomes.states.items()):
        met = any(c.holds(lookup_in(state).__getitem__) for c in outcomes.conditions)
        lines.append(f"{count:<8}{'*' if met else ':'}> {text_of(state)}")
    lines += [f"Broken {count}: {message}" for message, count in sorted(outcomes.broken.items())]
    total = outcomes.states.total()
    lines.append({"pass": "Ok", "fail": "No", "unknown": "Unknown"}[verdict])
    lines.append("Witnesses")
    lines.append(f"Positive: {outcomes.positive} Negative: {total - outcomes.positive}")
    text = " or ".join(f"({c.text})" for c in outcomes.conditions) or "(no violation)"
    broken = verdict == "fail" and not outcomes.conditions
    lines.append(f"Condition {'violated' if broken else outcomes.kind.lower()} {text}")
    lines.append(
        f"Observation {name} {outcomes.observation()} {outcomes.positive} "
        f"{total - outcomes.positive}"
    )
    lines.append(f"Verdict {verdict} ({'exhausted' if exhausted else 'bounded'})")
    return "\n".join(lines)
