"""A trial: one scenario, one schedule, checked all the way; and its record in a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from structlog.typing import Processor
from vkprotocol.events import EVENTS

from vkemu.executors.controlled import Choose
from vkemu.launch import assemble
from vkemu.launch.assemble import Machine
from vkemu.launch.outcome import Outcome, Recorder, conduct, headline
from vkemu.launch.scenario import Scenario
from vkemu.record import rundir, token
from vkemu.record.log import EventLog
from vkemu.record.vector_clock import Clocked
from vkemu.report.told import Told, explain
from vkhost.rmap import tree_of

Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a scenario and its schedule come from: what a token has to say again."""

    source: str  # a shipped name or a path
    settings: tuple[str, ...]
    strategy: str
    seed: int
    choices: bytes = b""


@dataclass(frozen=True, slots=True)
class Record:
    """A finished run, published in its folder."""

    folder: Path
    summary: dict[str, Any]
    outcome: Outcome
    told: Told | None
    not_kept: str = ""  # why there is no folder

    @property
    def failure(self) -> str:
        return "" if self.told is None else self.told.text

    @property
    def kept(self) -> str:
        """What `vkemu replay` takes in place of a long token: the folder."""
        too_long = len(self.summary["token"]) > token.PASTED_MAX and not self.not_kept
        return shlex.quote(str(self.folder)) if too_long else ""


def attempt(scenario: Scenario, choose: Choose, tick: Tick | None = None) -> Outcome:
    """Run without a log: the oracle alone looks. What most of a search does."""
    machine = assemble.assemble(scenario)
    recorder = Recorder(choose, tick)
    return conduct(machine.execution, recorder, scenario.max_steps, machine.finish)


def record(
    scenario: Scenario,
    choose: Choose,
    origin: Origin,
    root: Path,
    tick: Tick | None = None,
    *,
    zstd: bool = False,
    processors: Sequence[Processor] = (),
    quiet: bool = True,
) -> Record:
    """Run with the log on, into a new folder below `root`. `processors` are structlog's: every
    event passes them on its way into the log (`vkemu.record.log`). `quiet`: as of `assemble`.

    A disk that is full does not take the verdict: the run is then made again without a log.
    """
    run = f"{scenario.name}/{scenario.policy}/{origin.seed}"
    taken: Sequence[int] = ()
    try:
        with rundir.new_run(root, scenario.name) as folder:
            with folder.events(zstd=zstd) as out:
                execution = assemble.execution_for(scenario)
                clocked = Clocked(execution, choose)
                recorder = Recorder(clocked, tick)
                taken = recorder.choices
                log = EventLog(out, run, recorder.choices, clocked, processors)
                machine = assemble.assemble(scenario, log, execution, quiet=quiet)
                outcome = conduct(execution, recorder, scenario.max_steps, machine.finish)
            summary, told = tell(scenario, origin, outcome, machine, log.counts)
            folder.write_json(rundir.SCENARIO, msgspec.to_builtins(scenario))
            folder.write_json(rundir.SUMMARY, summary)
            if told is not None:
                folder.write_text(rundir.FAILURE, told.text)
                if told.failure is not None:
                    folder.write_text(rundir.REPORT, told.page)
    except OSError as error:
        machine = assemble.assemble(scenario)
        again = Recorder(resumed(taken, choose), tick)
        outcome = conduct(machine.execution, again, scenario.max_steps, machine.finish)
        summary, told = tell(scenario, origin, outcome, machine, dict.fromkeys(EVENTS, 0))
        why = f"not kept: {error.filename or root}: {error.strerror}"
        return Record(root, summary, outcome, told, why)
    return Record(folder.path, summary, outcome, told)


def resumed(taken: Sequence[int], choose: Choose) -> Choose:
    """What was chosen already, and then as `choose` goes on."""
    upcoming = iter(taken)

    def chosen(runnable: list[int]) -> int:
        tid = next(upcoming, None)
        return choose(runnable) if tid is None else tid

    return chosen


def tell(
    scenario: Scenario, origin: Origin, outcome: Outcome, machine: Machine, counts: dict[str, int]
) -> tuple[dict[str, Any], Told | None]:
    """What summary.json says, and the report of what did not pass."""
    word = str(token_of(scenario, origin, outcome))
    summary = summarize(scenario, origin, outcome, machine, counts) | {"token": word}
    try:
        told = explain(scenario, outcome, origin.seed, word, searched=bool(origin.choices))
    except KeyboardInterrupt:
        if outcome.error is None:
            raise
        line = headline(outcome.error)
        told = Told(f"{line}\n\n replay: vkemu replay {word}\n not told: interrupted\n")
    if told is not None and told.failure is not None and told.failure.bracket is not None:
        summary["window"] = told.failure.bracket.as_dict()
        if told.failure.width is not None:
            summary["moved"] = str(told.failure.width)
    return summary, told


def token_of(scenario: Scenario, origin: Origin, outcome: Outcome) -> token.Token:
    return token.Token(
        scenario=origin.source,
        settings=origin.settings,
        scenario_digest=scenario.identity[: token.DIGEST_BYTES],
        model_digest=token.model_digest(),
        strategy=origin.strategy,
        seed=origin.seed,
        steps=outcome.steps,
        schedule_crc=token.schedule_crc(outcome.choices),
        choices=origin.choices,
    )


def summarize(
    scenario: Scenario, origin: Origin, outcome: Outcome, machine: Machine, counts: dict[str, int]
) -> dict[str, Any]:
    """Nothing of it depends on the clock of this machine."""
    return {
        "verdict": outcome.verdict,
        "expected": scenario.expect,
        "failure": headline(outcome.error) if outcome.error is not None else None,
        "scenario": scenario.name,
        "about": scenario.about,
        "policy": scenario.policy,
        "tree": scenario.host.tree or tree_of(scenario.policy),
        "mutants": list(scenario.mutants),
        "settings": list(origin.settings),
        "strategy": origin.strategy,
        "seed": origin.seed,
        "guests": len(scenario.guest),
        "threads": len(set(outcome.choices)),
        "steps": outcome.steps,
        "virtual_ns": machine.virtual_ns,
        "faults": counts["fault.begin"],
        "invalidations": counts["inval.end"],
        "pages_scanned": counts["pageout.page"],
        "pages_freed": counts["page.free"],
        "events": sum(counts.values()),
        "counts": {name: count for name, count in sorted(counts.items()) if count},
        "counters": machine.counters(),
        "version": version("vkemu"),
    }
