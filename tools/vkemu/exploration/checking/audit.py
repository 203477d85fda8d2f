"""Executions taken again: does the program do the same under the same schedule?

Every search relies on it, and so does a token. The depth-first strategies compare each prefix that
they take again; whatever the strategy, the first execution, the 4th, the 16th and so on are noted
step by step and taken once more, the first also at the end, when what a program keeps from one
execution to the next has had its effect. Compared are the effects, where in the source they stand,
what they leave behind, the threads, and the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vkemu.executors.controlled import Execution
from vkemu.exploration.result import differs
from vkemu.exploration.run import BOUND, Run
from vkemu.exploration.stepwise import Path, Seen, Stepwise, announced

if TYPE_CHECKING:
    from vkemu.exploration.failure.witness import Witness


class Noted(NamedTuple):
    """An execution as it was. Of one that was not noted step by step, only the end is known."""

    schedule: Sequence[Path]
    message: str | None  # of its failure
    more: bool | None  # it could have gone on; None where nobody asked
    threads: tuple[str, ...] = ()  # of set-up
    seen: Sequence[Seen] = ()


def noted(run: Run) -> Noted:
    """The execution that is over now, and was begun `noting`."""
    execution = run.execution
    assert isinstance(execution, Stepwise)
    assert execution.seen is not None
    return Noted(
        [execution.threads[tid].path for tid in run.schedule],
        None if run.error is None else run.message(),
        None if run.blocked else run.cut,
        _roots(execution),
        execution.seen,
    )


def confirm(run: Run, witness: Witness) -> None:
    """A failure can be had again, or NondeterminismError."""
    if witness.kind != RecursionError.__name__:
        was = Noted(witness.schedule, witness.message, witness.kind == BOUND)
        take_again(run, take_again(run, was))


def audit_of(run: Run) -> Audit:
    """Of a program that has one of its own, that one."""
    kind: type[Audit] = getattr(run.program, "auditing", Audit)
    return kind(run)


class Audit:
    """Which executions of a search are taken again, and that."""

    def __init__(self, run: Run) -> None:
        self.program = run.program
        self.again = Run(
            run.program,
            run.max_steps,
            stop_on_failure=run.stop_on_failure,
            bound_fails=run.bound_fails,
        )
        self.forms: set[int] = set()  # of the traces that were taken, where others are looked for
        self.first: Noted | None = None
        self.concluded = 1  # executions, when the first was last taken again

    def due(self) -> bool:
        """Whether the execution that is about to begin is one of those."""
        program = self.program
        program.begun = begun = program.begun + 1
        return not begun & (begun - 1) and begun.bit_length() % 2 == 1

    def check(self, run: Run) -> None:
        """It is over."""
        if depends_on_the_stack(run.error):
            return
        was = noted(run)
        if self.first is None:
            self.first = was
        take_again(self.again, was)

    def saw(self, strategy: object) -> None:
        """A complete execution of the search."""

    def learned(self) -> bool:
        """Nothing is left: whether more is known by now than when the search began. Unseen when a
        trace was left out."""
        return False

    def conclude(self) -> None:
        """The search is over, or a part of it: of many short ones not after each."""
        begun = self.program.begun
        often = 16  # executions of the parts of a search before the first is taken again
        if self.first is not None and begun >= min(2 * self.concluded, self.concluded + often):
            self.concluded = begun
            take_again(self.again, self.first)


def take_again(run: Run, was: Noted) -> Noted:
    """The same schedule once more. NondeterminismError when that is not the same execution."""
    run.begin(noting=True)
    try:
        return _take_again(run, was)
    finally:
        run.execution.close()


def _take_again(run: Run, was: Noted) -> Noted:
    going = run.settle()
    execution = run.execution
    assert isinstance(execution, Stepwise)
    assert execution.seen is not None
    run.blocked = was.more is None
    if was.seen and was.threads != _roots(execution):
        threads = ", ".join(was.threads), ", ".join(_roots(execution))
        raise differs("step 0, with the threads", *threads)
    for position, path in enumerate(was.schedule):
        before = was.seen[position] if was.seen else None
        if going and not execution.runnable:
            execution.advance()
        thread = execution.threads.get(execution.tids.get(path, -1))
        if not going or thread is None or not thread.runnable:
            if not going and (not was.seen or depends_on_the_stack(run.error)):
                break
            name = before.thread if before is not None else str(path)
            said = before.text(before) if before is not None else "possible"
            raise differs(f"step {position}, by {name},", said, _not_again(run, going, before))
        run.schedule.append(thread.tid)
        going = execution.step(thread.tid) or not run.thread_failed()
        after = execution.seen[position]
        if before is not None and after != before and repr(after) != repr(before):  # NaN
            where = f"step {position}, by {before.thread},"
            raise differs(where, before.text(after), after.text(before))
        if going and run.watched:
            going = run.watch()
    _compare_ends(run, was, going)
    return noted(run)


def _compare_ends(run: Run, was: Noted, going: bool) -> None:
    execution = run.execution
    more = not run.blocked and going and (bool(execution.runnable) or execution.advance())
    run.cut = more and bool(was.more)
    run.finish()
    if run.blocked or depends_on_the_stack(run.error):
        return
    message = None if run.error is None else run.message()
    where = f"the end, after {len(was.schedule)} steps,"
    if more != was.more:
        raise differs(where, _more(was.message, bool(was.more)), _more(message, more))
    if message != was.message:
        raise differs(where, was.message or "no failure", message or "no failure")


def _more(message: str | None, more: bool) -> str:
    return "no end" if more else message or "no failure"


def _not_again(run: Run, going: bool, step: Seen | None) -> str:
    """What there is in place of `step`."""
    execution = run.execution
    if not going:
        return f"nothing, for it is over ({run.message()})"
    thread = None
    if step is not None:
        thread = execution.threads.get(execution.tids.get(step.path, -1))
    if thread is None or thread.pending is None:
        return "nothing"
    assert step is not None
    return f"{announced(thread).text(step)}, which cannot go on"


def _roots(execution: Execution) -> tuple[str, ...]:
    return tuple(thread.name for thread in execution.threads.values() if len(thread.path) == 1)


def depends_on_the_stack(error: BaseException | None) -> bool:
    """How deep a recursion can go depends on who calls, and is not the program's doing."""
    return isinstance(error, RecursionError)
