"""`replay`: a token's schedule, taken again and checked against what it is known to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from vkprotocol.effects import key_text

from vkemu.executors.announced import blocked_on
from vkemu.exploration.arguments import check_token
from vkemu.exploration.checking.audit import confirm, depends_on_the_stack
from vkemu.exploration.checking.guards import enforcing
from vkemu.exploration.failure.budget import INTERRUPTED
from vkemu.exploration.failure.recorder import Recorder, Told
from vkemu.exploration.failure.shrink import fresh, measured, smallest
from vkemu.exploration.failure.witness import Witness, fails_as
from vkemu.exploration.forgotten import origins
from vkemu.exploration.program import Program, program_for
from vkemu.exploration.result import Failure, TokenError, differs
from vkemu.exploration.run import BOUND, TOO_DEEP, Run
from vkemu.exploration.token import Token, digest_of, parse

SPAWN_FRAMES: Final = 4  # from the coroutine of a thread to who spawned it
CHANGED = "the program is not the one this token was made from"


@enforcing
def replay(program: Callable[[Any], object], token: str, *, check: bool = False) -> Failure:
    """Take the schedule of `token` again and return its failure, narrated.

    TokenError when the token is damaged, or when the program does something else than it did when
    the token was made.
    """
    check_token(token)
    wanted = parse(token)
    told = follow(again_of(program_for(program, {}, check=check), wanted), wanted)
    if told.token is None:
        raise TokenError(f"{CHANGED}: it no longer fails under this schedule")
    if digest_of(told.message) != wanted.message:
        raise TokenError(f"{CHANGED}: under this schedule it fails otherwise: {told.message}")
    return failure_of(told)


def again_of(program: Program, token: Token) -> Run:
    """A run that stops at the failure the token was made of."""
    program = program_for(program.build, {}, check=program.check)
    return Run(program, 0, wanted=lambda fault: digest_of(fault.message) == token.message)


def follow(run: Run, wanted: Token) -> Told:
    try:
        with origins(SPAWN_FRAMES):
            run.begin()
            return _follow(run, wanted)
    finally:
        run.execution.close()


def _follow(run: Run, wanted: Token) -> Told:
    recorder = Recorder(run)
    going = run.settle()
    execution = run.execution
    for stretch in wanted.stretches:
        for _ in range(stretch.steps):
            position = len(recorder.steps)
            if not going and depends_on_the_stack(run.error):
                break
            if not going:
                raise TokenError(f"{CHANGED}: it stops after {position} steps")
            if not execution.runnable:
                execution.advance()
            tids = list(execution.threads)
            if stretch.thread >= len(tids):
                raise TokenError(f"{CHANGED}: no thread {stretch.thread} at step {position}")
            thread = execution.threads[tids[stretch.thread]]
            if not thread.runnable:
                raise TokenError(
                    f"{CHANGED}: at step {position} {blocked_on(thread, execution.threads)}"
                )
            going = recorder.step(thread.tid)
        if depends_on_the_stack(run.error):
            break
        recorder.fingerprint.close()
        if recorder.fingerprint.stretches[-1].digest != stretch.digest:
            first = len(recorder.steps) - stretch.steps
            names = key_text(recorder.steps[first].thread)
            raise TokenError(
                f"{CHANGED}: steps {first} to {len(recorder.steps) - 1}, by {names}, "
                "are not what they were"
            )
    if going and recorder.steps:
        too_deep = f"{recorder.steps[-1].thread}: {RecursionError.__name__}: {TOO_DEEP}"
        if wanted.message == digest_of(too_deep):
            going = recorder.deepen()
    if going and run.faults and run.faults[-1].at == len(recorder.steps):
        run.choose(run.faults[-1])  # it fails there, and otherwise
        going = False
    more = going and (bool(execution.runnable) or execution.advance())
    if wanted.cut:
        run.max_steps = len(recorder.steps)
        run.bound_fails = run.cut = more
    elif more:
        raise TokenError(f"{CHANGED}: it goes on after {len(recorder.steps)} steps")
    run.finish()
    if run.error is None and run.faults:
        run.choose(run.faults[0])
    return recorder.told()


def failure_of(told: Told, preemptions: int = 0, shrunk: str = "") -> Failure:
    return Failure(
        told.message,
        told.schedule,
        token=str(told.token),
        steps=told.steps,
        preemptions=preemptions,
        shrunk=shrunk,
        error=told.run.error,
    )


def failure_of_witnesses(
    witnesses: Iterable[Witness],
    found_by: Run,
    progress: Callable[[str], None] | None = None,
    deadline: float | None = None,
) -> Failure:
    """Confirmed, shrunk, and told; with a token that was tried. Shrunk until the `deadline`."""
    witnesses = list(witnesses)
    try:
        for witness in witnesses:
            confirm(fresh(found_by, witness), witness)
        witness = smallest(witnesses, found_by, progress, deadline)
    except KeyboardInterrupt:  # before the first was tried with less
        witness = measured(witnesses[0], found_by)._replace(shrunk=f"not at all {INTERRUPTED}")
    try:
        return _told_twice(witness, found_by)
    except KeyboardInterrupt:
        if witness.shrunk.endswith(INTERRUPTED):
            raise  # the second
        return _told_twice(witness, found_by)  # of the first the failure is what there is to show


def _told_twice(witness: Witness, found_by: Run) -> Failure:
    told = tell(fresh(found_by, witness), witness)
    where = f"the end, after {len(told.steps)} steps,"
    if told.token is None or not fails_as(told.run, witness):
        raise differs(where, witness.message, told.message or "no failure")
    try:
        again = follow(again_of(found_by.program, told.token), told.token)
    except TokenError as error:
        raise differs(where, told.message, f"not to be had again ({error})") from None
    if again.message != told.message:
        raise differs(where, told.message, again.message or "no failure")
    return failure_of(told, witness.preemptions, witness.shrunk)


def tell(run: Run, witness: Witness) -> Told:
    """Take a failing schedule again, recorded. What it leads to may be no end: then no failure."""
    with origins(SPAWN_FRAMES):
        return _tell(run, witness)


def _tell(run: Run, witness: Witness) -> Told:
    run.begin()
    recorder = Recorder(run)
    going = run.settle()
    execution = run.execution
    for path in witness.schedule:
        if not going:
            break
        if not execution.runnable:
            execution.advance()
        tid = execution.tids.get(path, -1)
        if tid not in execution.runnable:
            execution.close()
            raise differs(f"step {len(recorder.steps)}, by thread {path},", "possible", "not")
        going = recorder.step(tid)
    if going and witness.kind == RecursionError.__name__:
        going = recorder.deepen()
    more = going and (bool(execution.runnable) or execution.advance())
    # A livelock was cut where its schedule ends.
    run.cut = more and witness.kind == BOUND
    run.blocked = more and not run.cut
    run.finish()
    return recorder.told()
