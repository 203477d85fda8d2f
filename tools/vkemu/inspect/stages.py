"""What `vkemu step` can step through: scenarios and litmus tests, and the tokens of their runs."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

from vkemu import token
from vkemu.assemble import assemble
from vkemu.controlled import Execution
from vkemu.exploration.program import Program
from vkemu.exploration.replaying import tell
from vkemu.exploration.run import Run
from vkemu.exploration.shrink import Witness
from vkemu.inspect.stepper import Stepper
from vkemu.litmus.decide import Test
from vkemu.litmus.file import Litmus, load_litmus
from vkemu.litmus.token import LitmusToken, identity
from vkemu.outcome import Outcome
from vkemu.report.explored import Observed
from vkemu.report.recording import Recording
from vkemu.scenario import Scenario, load, shipped_names
from vkemu.trial import Origin, token_of
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
            except AssertionError as found:
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
            self.loaded = load(source)
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

    def token(self, stepper: Stepper) -> str | None:
        """The word that replays what was stepped, which must be at its end; None when it has none:
        a litmus test's token is that of a failure."""
        assert stepper.over
        if isinstance(self.loaded, Litmus):
            return self._litmus_token(stepper)
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
        return str(LitmusToken(*head, str(told.token)))
