"""What `vkemu step` can step through: scenarios and litmus tests, and the tokens of their runs."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

from vkemu.executors.controlled import Execution
from vkemu.exploration.failure.witness import Witness
from vkemu.exploration.program import Program
from vkemu.exploration.replaying import replay, tell
from vkemu.exploration.result import ExplorationError
from vkemu.exploration.run import Run
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import FAILURES, Outcome
from vkemu.launch.scenario import Scenario, load, shipped_names
from vkemu.litmus import file
from vkemu.litmus import token as litmus_token
from vkemu.litmus.decide import Test
from vkemu.litmus.file import Litmus, load_litmus
from vkemu.litmus.token import LitmusToken, identity
from vkemu.record import token
from vkemu.report.explored import Observed, summary_of
from vkemu.report.recording import Recording
from vkemu.report.trial import Origin, token_of
from vkemu.stepping.step_token import StepToken, parse
from vkemu.stepping.stepper import Stepper
from vkemu.verdict import UsageError


class StagedScenario:
    """A scenario of whole guests."""

    def __init__(self, scenario: Scenario) -> None:
        self.execution = Execution()
        self.recording = Recording(self.execution, min)
        self.machine = assemble(scenario, self.recording, self.execution)

    def end(self) -> BaseException | None:
        error: BaseException | None = self.execution.deadlock()
        if error is None:
            try:
                self.machine.finish()
            except FAILURES as found:
                error = found
        return error


class StagedLitmus(Observed):
    """A litmus test on a policy."""

    recording: Recording

    def __init__(self, litmus: Litmus, policy: str) -> None:
        super().__init__(lambda emit: Test(litmus, policy, emit), min, record=True)


class Subject:
    """A file to step through, under a policy."""

    def __init__(self, source: str, policy: str | None = None, variant: str = "") -> None:
        self.source = source
        self.loaded: Any = None
        if Path(source).exists() or source in shipped_names():
            self.loaded = file.load(source)
        if self.loaded is None or isinstance(self.loaded, Litmus):
            self.loaded = load_litmus(source, variant)
            self.policy = policy or "pv_entry"
        else:
            if variant:
                raise UsageError(f"{source}: a scenario has no variants, expected a litmus test")
            if policy is not None:
                self.loaded = load(source, (f"policy={policy}",))
            self.policy = self.loaded.policy
        self.name = f"{self.loaded.name} [{self.policy}]"

    def stepper(self) -> Stepper:
        loaded = self.loaded
        if isinstance(loaded, Litmus):
            return Stepper(lambda: StagedLitmus(loaded, self.policy))
        return Stepper(lambda: StagedScenario(loaded))

    @classmethod
    def at(cls, word: str, source: str | None = None) -> tuple[Subject, Stepper]:
        """Where a token was saved, to go on from there; or the end of a failing litmus test.
        `source`: where its file is now."""
        if word.startswith(litmus_token.PREFIX):
            return cls._at_failure(word, source)
        found = parse(word)
        subject = cls(source or found.source, found.policy, found.variant)
        for what, then, now in (
            (found.source, found.identity, subject.identity),
            ("the kernels", found.model, token.model_digest()),
        ):
            if then != now:
                raise UsageError(
                    f"step: {what} changed since this token was made, expected the same "
                    "(a schedule means nothing to another program)"
                )
        stepper = subject.stepper()
        try:
            stepper.replay(list(token.unpack(found.choices)))
        except ValueError as error:
            raise UsageError(f"step: damaged token, {error}") from None
        return subject, stepper

    @classmethod
    def _at_failure(cls, word: str, source: str | None) -> tuple[Subject, Stepper]:
        found = litmus_token.parse(word)
        found = replace(found, source=source or found.source)
        litmus = found.litmus()
        try:
            failure = replay(Test(litmus, found.policy), found.schedule)
        except ExplorationError as error:
            raise UsageError(f"step: {error}") from None
        subject = cls(found.source, found.policy, found.variant)
        subject.loaded = litmus
        stepper = subject.stepper()
        stepper.replay(failure.schedule)
        return subject, stepper

    @property
    def identity(self) -> str:
        """What it means, whatever its comments and layout."""
        loaded = self.loaded
        return identity(loaded) if isinstance(loaded, Litmus) else str(loaded.identity.hex()[:12])

    def summary(self, word: str) -> dict[str, Any]:
        """What summary.json says of a run by hand, besides how it went."""
        if isinstance(self.loaded, Litmus):
            return summary_of(self.loaded, self.policy, word)
        checks = list(self.loaded.checks)  # none: the default ones
        return {
            "scenario": self.loaded.name,
            "policy": self.policy,
            "checks": checks,
            "token": word,
        }

    def token(self, stepper: Stepper) -> str:
        """The word that replays what was stepped: that of a whole run, of a failing litmus test,
        else of the place where the stepper stands."""
        if stepper.over:
            litmus = isinstance(self.loaded, Litmus)
            word = self._litmus_token(stepper) if litmus else self._run_token(stepper)
            if word is not None:
                return word
        variant = self.loaded.variant if isinstance(self.loaded, Litmus) else ""
        choices = token.pack(array("H", stepper.choices))
        model = token.model_digest()
        return str(StepToken(self.source, self.policy, variant, self.identity, model, choices))

    def _run_token(self, stepper: Stepper) -> str:
        choices = array("H", stepper.choices)
        verdict = "pass" if stepper.error is None else "fail"
        outcome = Outcome(verdict, choices, stepper.error)  # type: ignore[arg-type]
        settings = () if self.policy == load(self.source).policy else (f"policy={self.policy}",)
        origin = Origin(self.source, settings, "step", 0, token.pack(choices))
        return str(token_of(self.loaded, origin, outcome))

    def _litmus_token(self, stepper: Stepper) -> str | None:
        program = Program(Test(self.loaded, self.policy), {})
        threads = stepper.execution.threads
        paths = [threads[tid].path for tid in stepper.choices]
        told = tell(Run(program, len(paths) + 1), Witness("", "", paths))
        if told.token is None:
            return None
        litmus = self.loaded
        head = (self.source, self.policy, litmus.variant, identity(litmus))
        return str(LitmusToken(*head, str(told.token), litmus.tree))
