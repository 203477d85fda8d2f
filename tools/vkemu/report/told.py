"""failure.txt and report.html: what went wrong, told so that it can be pasted and walked through.

The failing schedule is run once more, watched step by step (`vkemu.report`), then again with the
interfering step moved, to measure the window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass

import msgspec

from vkemu.executors.chance import seeded
from vkemu.executors.controlled import Choose
from vkemu.launch import assemble
from vkemu.launch.outcome import Outcome, Recorder, conduct, headline, recorded
from vkemu.launch.scenario import Scenario
from vkemu.report import html, text
from vkemu.report.code_line import code_lines
from vkemu.report.failure import Failure, alike
from vkemu.report.recording import Recording, Step
from vkemu.report.text import COLUMNS
from vkemu.report.width import Lenient
from vkguest.kern.errors import GuestPanic
from vkhost.kern.panic import Panic

# Of a longer run the end is told, without a page, and it is not taken again some thirty times.
TOLD_STEPS = 60_000
TOKEN = re.compile(r"vkemu replay vk1\.[\w-]+")


@dataclass(frozen=True, slots=True)
class Told:
    """A run that did not pass: failure.txt, and report.html unless nothing failed in it or it is
    too long to be looked at."""

    text: str
    failure: Failure | None = None
    # In so many columns, where it is not told as failure.txt is.
    narrated: Callable[[int], str] | None = None

    def on_screen(self, columns: int = COLUMNS, kept: str = "") -> str:
        """As wide as a terminal. `kept`: what `vkemu replay` takes in place of a token that is too
        long to be pasted, empty when it is not."""
        if self.narrated is not None:
            return self.narrated(columns)
        if self.failure is None:
            command = f"vkemu replay {kept}"
            return TOKEN.sub(lambda _: command, self.text) if kept else self.text
        failure = copy(self.failure)
        if kept:
            failure.replay = f"vkemu replay {kept}"
        return text.render(failure, columns)

    @property
    def page(self) -> str:
        """Made when it is asked for: it takes a second for a long run."""
        return "" if self.failure is None else html.render(self.failure)


def explain(
    scenario: Scenario, outcome: Outcome, seed: int, token: str, *, searched: bool = False
) -> Told | None:
    """The whole report of a run that did not pass; None for one that did. `searched`: its schedule
    is not that of the seed."""
    if outcome.error is None:
        return None
    replay = f"vkemu replay {token}"
    if outcome.verdict == "unknown":
        return Told(f"unknown: {headline(outcome.error)}\n\n replay: {replay}\n")
    if isinstance(outcome.error, Panic | GuestPanic):
        # A panic is a symptom: the kernel noticed late what the oracle, allowed to look at
        # everything, sees at once. So every check is on, and what comes first is the answer.
        scenario = msgspec.structs.replace(scenario, checks=())
    since = max(0, outcome.steps - TOLD_STEPS)
    error, steps, code = watch(scenario, outcome, since)
    context = {"scenario": scenario.name, "policy": scenario.policy}
    if not searched:
        context["seed"] = str(seed)
    if scenario.mutants:
        context["mutants"] = " ".join(scenario.mutants)
    if since:
        context["told"] = f"from step {since} of {outcome.steps}"
    failure = Failure.of(error, steps, replay=replay, context=context)
    failure.code = code
    if not isinstance(error, type(outcome.error)):
        failure.message = f"{headline(outcome.error)} - because {failure.message}"
    if since:
        return Told(text.render(failure))
    failure.measure(lambda choose: alike(error, again(scenario, choose)))
    for name, other in closers(scenario):
        same = Lenient(outcome.choices) if searched else seeded(seed)
        if again(other, same) is None:
            what = "schedule, as far as it goes," if searched else "seed"
            failure.closed_by.append(f"{name} (the same {what} passes)")
    return Told(text.render(failure), failure)


def closers(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    """The scenario with one thing mended that may be what it fails for."""
    replace = msgspec.structs.replace
    if scenario.mutants:
        yield "no deliberate defect", replace(scenario, mutants=())
    if not scenario.host.interlock:
        yield "the interlock", replace(scenario, host=replace(scenario.host, interlock=True))
    exact = "pv_entry"  # the reverse map that knows every PTE
    if scenario.policy != exact:
        yield f"policy {exact}", replace(scenario, policy=exact)


def again(scenario: Scenario, choose: Choose) -> BaseException | None:
    """How the scenario ends under another schedule."""
    machine = assemble.assemble(scenario)
    recorder = Recorder(choose)
    return conduct(machine.execution, recorder, scenario.max_steps, machine.finish).error


def watch(
    scenario: Scenario, outcome: Outcome, since: int = 0
) -> tuple[BaseException, list[Step], tuple[str, ...]]:
    """The failure again, with its steps from number `since` on, and where machine code was."""
    execution = assemble.execution_for(scenario)
    recording = Recording(execution, recorded(outcome.choices), since=since)
    machine = assemble.assemble(scenario, recording, execution)
    ended = conduct(execution, Recorder(recording), scenario.max_steps, machine.finish)
    assert ended.error is not None, "the same schedule fails again"
    return ended.error, recording.steps, tuple(code_lines(machine))
