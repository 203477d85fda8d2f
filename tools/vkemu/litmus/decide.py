"""Decide a litmus test on a policy: explore its interleavings, collect its final states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Literal, NoReturn, TypeAlias

from vkemu.exploration.result import Failure, Result
from vkemu.exploration.run import Run
from vkemu.launch.outcome import FAILURES
from vkemu.litmus.condition import Condition
from vkemu.litmus.file import Litmus
from vkemu.litmus.herd import State, Values, render, state_of
from vkemu.litmus.machine import Machine
from vkemu.litmus.snapshot import Snapshot
from vkemu.litmus.statement import Said
from vkemu.litmus.token import identity
from vkemu.litmus.verbs import check_statements, run_before, run_program
from vkemu.litmus.vkernel import GuestMachine
from vkemu.litmus.wrote import wrote
from vkemu.oracle import DEFAULT_CHECKS, Oracle
from vkemu.record import token
from vkhost.kernel import Emit
from vkhost.rmap import POLICIES

# Set-ups, before it is worth while to note what they leave: it takes as long as two of them.
OFTEN: Final = 3

Ending: TypeAlias = tuple[Literal["state"], State] | tuple[Literal["broken"], str]


class ForbiddenOutcome(AssertionError):
    """An execution ended in a state that the test does not permit."""

    forbidden = True
    # Who wrote what the outcome reads; asked when somebody wants to know, of the one that is shown.
    wrote: Callable[[], Iterable[str]] | None = None

    @property
    def details(self) -> tuple[str, ...]:
        return () if self.wrote is None else tuple(f"wrote: {line}" for line in self.wrote())


class Test:
    """A litmus test on a policy, as a program for `explore`: kernel, oracle and threads.

    `listen`, if given, hears every event after the oracle has, `said` every statement that is over
    (without a [guest], whose programs are instructions); `machine` is that of the last execution,
    and of the next one.
    """

    earned = (*FAILURES, ForbiddenOutcome)

    def __init__(self, litmus: Litmus, policy: str, listen: Emit | None = None) -> None:
        check_statements(litmus)
        self.litmus = litmus
        self.policy = policy
        self.listen = listen
        self.said: Said | None = None
        self.outcomes = litmus.outcomes()
        self.values: Values = {}
        self.machine: Machine | GuestMachine | None = None
        self._oracle: Oracle | None = None
        self._of: Any = None  # whose both are,
        self._made = 0  # and how often that was done
        self._at_rest: Snapshot | None = None
        self.__qualname__ = f"{litmus.name}[{policy}]"

    @property
    def only_ours(self) -> bool:
        """A test is statements, which our code takes; a policy of a file is somebody else's."""
        return POLICIES.get(self.policy, "").startswith("vkhost.")

    def __call__(self, k: Any) -> None:
        try:
            oracle, machine = self._set_up(k)
        except FAILURES as error:
            # The set-up makes kernel calls, too: an execution that is over before it begins.
            k.at_end(partial(_raise, error))
            return
        machine.kernel.start()
        if isinstance(machine, GuestMachine):
            machine.start(k.spawn)
        else:
            for program in self.litmus.threads:
                k.spawn(program.name, run_program(machine, program, self.said))
        self.values = {}
        k.at_end(lambda: self._judge(oracle, machine))

    def _set_up(self, k: Any) -> tuple[Oracle, Machine | GuestMachine]:
        """Both as the set-up leaves them: made, and once that has been done often, put back."""
        if self._of is not k:
            self._of, self._made, self._at_rest = k, 0, None
        if self._at_rest is not None:
            assert self._oracle is not None
            assert self.machine is not None
            self._at_rest.restore()
            return self._oracle, self.machine
        self._oracle = oracle = Oracle(self.litmus.file.litmus.checks or DEFAULT_CHECKS)
        emit = self._emit_to(oracle)
        if self.litmus.file.guest is None:
            self.machine = machine = Machine(self.litmus, self.policy, k.spawn, emit)
            machine.set_up(partial(run_before, said=self.said))
        else:
            self.machine = guest = GuestMachine(self.litmus, self.policy, k.spawn, emit)
            guest.set_up()
        self._made += 1
        # A listener hears the set-up of every execution, and a check sees who makes what.
        if self._made == OFTEN and self.listen is None and not k.check:
            self.machine.look()
            self._at_rest = Snapshot((self.machine, oracle), outside=(k,))
        return oracle, self.machine

    def _emit_to(self, oracle: Oracle) -> Emit:
        listen = self.listen
        if listen is None:
            return oracle

        def emit(name: str, /, *fields: Any) -> None:
            # The listener first: what breaks the invariant is then the last event it has heard.
            listen(name, *fields)
            oracle(name, *fields)

        return emit

    def _judge(self, oracle: Oracle, machine: Machine | GuestMachine) -> bool:
        self.values = {atom: machine.value(atom) for atom in self.litmus.atoms}
        oracle.finish()
        if "books" in oracle.checks:
            machine.books(oracle.shadow).check()
        wrong = self.outcomes.wrong(self.values)
        if wrong is not None:
            raise ForbiddenOutcome(wrong)
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        """As other processes need it: with nothing run and nothing counted."""
        return Test, (self.litmus, self.policy)

    @property
    def identity(self) -> str:
        """Which test of which kernels: what is left of a search means nothing to another."""
        whole = " whole" * self.litmus.whole
        return f"{identity(self.litmus)} {self.policy} {token.model_digest().hex()}{whole}"

    def ending(self, run: Run) -> Ending:
        """What a complete execution ended in."""
        if run.error is None or isinstance(run.error, ForbiddenOutcome):
            return "state", state_of(self.values)
        # Which came first of two that have nothing to do with each other, an order decides.
        return "broken", "\n".join(sorted({fault.message for fault in run.faults}))

    def count(self, ending: Ending, times: int) -> None:
        if ending[0] == "state":
            self.outcomes.count_state(ending[1], times)
        else:
            for message in ending[1].splitlines():
                self.outcomes.broken[message] += times

    def note(self, run: Run) -> None:
        """Count a complete execution, where it is taken."""
        ending = self.ending(run)
        self.count(ending, 1)
        kept = self.outcomes.witnesses
        if kept is not None:
            ends = (ending[1],) if ending[0] == "state" else ending[1].splitlines()
            for end in ends:
                kept.setdefault(end, tuple(run.schedule))


def _raise(error: BaseException) -> NoReturn:
    raise error


class Decision:
    """What exploring one test on one policy said."""

    __slots__ = ("litmus", "outcomes", "policy", "result", "unmet", "verdict")

    def __init__(self, test: Test, result: Result) -> None:
        self.litmus = test.litmus
        self.policy = test.policy
        self.outcomes = test.outcomes
        self.result = result
        self.verdict = result.verdict
        # What had to happen, and in all there is did not.
        self.unmet: list[Condition] = []
        if result.verdict == "pass" and result.exhausted:
            self.unmet = self.outcomes.missing()
        if self.unmet:
            self.verdict = "fail"

    @property
    def failure(self) -> Failure | None:
        return self.result.failure

    @property
    def text(self) -> str:
        return self.herd()

    def herd(self, replay: Callable[[Sequence[int]], str] = str) -> str:
        """As herd7 prints it. `replay`: the command that takes a witness again."""
        return render(
            f"{self.litmus.name}[{self.policy}]",
            self.outcomes,
            verdict=self.verdict,
            exhausted=self.result.exhausted,
            at_failure=self.result.at_failure,
            replay=replay,
        )

    @property
    def told(self) -> list[tuple[str, list[str]]]:
        """Of each required outcome that was never reached: that, and what came near."""
        what = "required outcome was never reached"
        return [(f"{what}: {c.text}", self.outcomes.nearest(c)) for c in self.unmet]


def decide(litmus: Litmus, policy: str, *, strategy: Any = "dpor", **options: Any) -> Decision:
    """Explore the test; `options` are those of `explore`. The first violation ends it, unless
    `stop_on_failure=False`: then all states there are, for a table of outcomes."""
    test = Test(litmus, policy)
    options.setdefault("max_steps", litmus.file.litmus.max_steps)
    options.setdefault("on_step_bound", litmus.file.litmus.on_step_bound)
    result = counted(test, strategy=strategy, **options)
    if result.interrupted:  # one question of many: none of them is answered any more
        raise KeyboardInterrupt
    return Decision(test, result)


def counted(test: Test, **options: Any) -> Result:
    """Explore the test and count its outcomes, wherever the work is done."""
    from vkemu.exploration import explore

    elsewhere = options.get("workers") is not None or options.get("jobs", 1) > 1
    if not elsewhere and options.get("checkpoint") is None:
        options["each"] = test.note
    result = explore(test, **options)
    if result.verdict == "pass" and not result.exhausted:
        result.remarks += [
            f"no execution of these reached what is required: {condition.text}"
            for condition in test.outcomes.missing()
        ]
    if result.failure is not None and isinstance(result.failure.error, ForbiddenOutcome):
        again = partial(Test, test.litmus, test.policy)
        result.failure.error.wrote = partial(wrote, again, result.failure.schedule, 0)
    return result
