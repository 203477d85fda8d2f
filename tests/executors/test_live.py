"""The live executor does what the controlled one does: same choices, same events, same end."""

from __future__ import annotations

from contextlib import ExitStack
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.controlled import Execution, StepBound
from vkemu.executors.deadlock import Deadlock
from vkemu.executors.live import QUANTUM, Live, ScheduleError
from vkprotocol.effects import CLOCK, CURTHREAD, Cell, Lock, Mailbox, curthread, pause

from tests.executors.programs import OPERATIONS, Log, Program, build, following, run_live

MAX_STEPS = 400

_operation = st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 3))
_programs = st.lists(st.lists(_operation, min_size=1, max_size=4), min_size=1, max_size=4)
backends = pytest.mark.parametrize("backend", BACKENDS)


def controlled(program: Program, seed: int) -> tuple[Log, list[int], str]:
    """A run under Execution by a seeded random choice: its log, its schedule, how it ended."""
    log: Log = []
    execution = Execution()
    build(program, log)(execution)
    random, schedule = Random(seed), []

    def choose(runnable: list[int]) -> int:
        schedule.append(random.choice(runnable))
        return schedule[-1]

    end = "done"
    try:
        execution.run(choose, MAX_STEPS)
    except (Deadlock, StepBound, ValueError) as error:
        end = repr(error)
    execution.close()
    return log, schedule, end


def live(program: Program, backend: str, **options: Any) -> tuple[Log, list[int], str]:
    log: Log = []
    execution = Live(max_steps=MAX_STEPS, record=True, **options)
    build(program, log)(execution)
    end = "done"
    try:
        on_backend(backend, execution.run)
    except (Deadlock, StepBound, ValueError) as error:
        end = repr(error)
    execution.close()
    assert execution.schedule is not None
    return log, list(execution.schedule), end


@pytest.mark.slow
@backends
@settings(max_examples=40)
@given(program=_programs, seed=st.integers(0, 1 << 32))
def test_an_imposed_schedule_gives_the_controlled_events(
    backend: str, program: Program, seed: int
) -> None:
    log, schedule, end = controlled(program, seed)

    assert live(program, backend, schedule=schedule) == (log, schedule, end)


@pytest.mark.slow
@backends
@settings(max_examples=40)
@given(program=_programs)
def test_a_free_run_replays_under_control(backend: str, program: Program) -> None:
    log, schedule, end = live(program, backend)

    again: Log = []
    execution = Execution()
    build(program, again)(execution)
    how = "done"
    try:
        execution.run(following(schedule), MAX_STEPS)
    except (Deadlock, StepBound, ValueError) as error:
        how = repr(error)
    execution.close()

    assert (again, how) == (log, end)


@backends
def test_a_schedule_of_another_program_is_an_error(backend: str) -> None:
    def two(execution: Live) -> None:
        lock = Lock("l")

        async def locked() -> None:
            async with lock:
                pass

        execution.spawn("a", locked())
        execution.spawn("b", locked())

    with pytest.raises(ScheduleError, match="names thread 1, which cannot run, after 1 steps"):
        run_live(two, backend, schedule=[0, 1])
    with pytest.raises(ScheduleError, match="ends after 1 steps"):
        run_live(two, backend, schedule=[0])
    assert run_live(two, backend, schedule=[0, 0, 1, 1])[0].steps == 4


@backends
def test_daemons_end_when_all_others_are_done(backend: str) -> None:
    def program(execution: Live) -> list[int]:
        ticks: list[int] = []

        async def daemon() -> None:
            while True:
                await pause(100)
                ticks.append(CLOCK[0])

        async def worker() -> None:
            await pause(250)

        execution.spawn("daemon", daemon(), daemon=True)
        execution.spawn("worker", worker())
        return ticks

    execution, ticks = run_live(program, backend)

    assert ticks == [100, 200]
    assert execution.clock == 250


@backends
def test_an_error_ends_the_run_and_is_raised_as_it_is(backend: str) -> None:
    cell = Cell("x", 0)

    async def fails() -> None:
        await cell.store(1)
        raise ValueError("no")

    async def waits() -> None:
        await cell.wait(lambda v: v == 2)

    def program(execution: Live) -> None:
        execution.spawn("waits", waits())
        execution.spawn("fails", fails())

    with pytest.raises(ValueError, match=r"^no$"):
        run_live(program, backend)


@backends
def test_an_error_before_the_first_effect_of_a_child_is_raised_too(backend: str) -> None:
    async def bad() -> None:
        raise ValueError("at once")

    async def parent(execution: Live) -> None:
        await pause(1)
        execution.spawn("bad", bad())
        await pause(1)

    with pytest.raises(ValueError, match="at once"):
        run_live(lambda execution: execution.spawn("bad", bad()), backend)
    with pytest.raises(ValueError, match="at once"):
        run_live(lambda execution: execution.spawn("parent", parent(execution)), backend)


@backends
def test_deadlock_names_who_waits_for_what(backend: str) -> None:
    def program(execution: Live) -> None:
        mailbox = Mailbox("mail")

        async def waits() -> None:
            await mailbox.recv()

        execution.spawn("reader", waits())

    with pytest.raises(Deadlock, match=r"reader waits to recv mail \(now 0\)"):
        run_live(program, backend)


@backends
def test_checking_holds_live(backend: str) -> None:
    def program(execution: Live) -> None:
        low, high = Lock("low", rank=1), Lock("high", rank=2)

        async def wrong() -> None:
            async with high, low:
                pass

        execution.spawn("wrong", wrong())

    with pytest.raises(AssertionError, match="takes low"):
        run_live(program, backend, checking=True)
    run_live(program, backend)


@backends
def test_a_busy_thread_lets_the_event_loop_run(backend: str) -> None:
    cell = Cell("x", 0)

    async def busy() -> None:
        while await cell.load() == 0:
            pass

    async def outside(execution: Live) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        cell.state = 1
        execution.changed(cell)

    async def main() -> int:
        execution = Live(time_scale=1.0, max_steps=1000 * QUANTUM)
        execution.spawn("busy", busy())
        async with anyio.create_task_group() as group:
            group.start_soon(outside, execution)
            await execution.run()
        return execution.steps

    assert 0 < on_backend(backend, main) < 1000 * QUANTUM


@backends
def test_mail_from_outside_reaches_the_waiter(backend: str) -> None:
    received: list[str] = []

    async def main() -> None:
        execution = Live(time_scale=1.0)
        mailbox = Mailbox("mail")

        async def reader() -> None:
            assert curthread().name == "reader"
            received.append(await mailbox.recv())
            received.append(await mailbox.recv())
            execution.spawn("child", pause_a_little())

        async def pause_a_little() -> None:
            await pause(1000)
            received.append("child")

        async def outside() -> None:
            await anyio.wait_all_tasks_blocked()
            assert received == []
            execution.post(mailbox, "one")
            await anyio.wait_all_tasks_blocked()
            assert received == ["one"]
            assert CURTHREAD[0] is None
            execution.post(mailbox, "two")
            assert execution.spawn("late", late()).path == (1,)
            source.close()

        async def late() -> None:
            await pause(1000)
            received.append("late")

        execution.spawn("reader", reader())
        source = ExitStack()
        source.enter_context(execution.source())
        async with anyio.create_task_group() as group:
            group.start_soon(outside)
            await execution.run()

    on_backend(backend, main)

    assert received[0] == "one"
    assert sorted(received[1:]) == ["child", "late", "two"]


def test_a_source_needs_real_time() -> None:
    with pytest.raises(ValueError, match="time_scale"), Live().source():
        pass


@backends
def test_no_deadlock_is_declared_while_a_source_is_attached(backend: str) -> None:
    async def main() -> None:
        execution = Live(time_scale=1.0)
        mailbox = Mailbox("mail")

        async def waits() -> None:
            await mailbox.recv()

        async def outside() -> None:
            await anyio.wait_all_tasks_blocked()
            assert not execution.over
            source.close()

        execution.spawn("reader", waits())
        source = ExitStack()
        source.enter_context(execution.source())
        async with anyio.create_task_group() as group:
            group.start_soon(outside)
            with pytest.raises(Deadlock):
                await execution.run()

    on_backend(backend, main)


@backends
def test_the_step_bound_is_kept(backend: str) -> None:
    def program(execution: Live) -> None:
        async def forever() -> None:
            while True:
                await pause(10)

        execution.spawn("forever", forever())

    with pytest.raises(StepBound, match="no end within 50 steps"):
        run_live(program, backend, max_steps=50)


def test_backends_have_names() -> None:
    with pytest.raises(ValueError, match="no backend 'curio', there are trio, asyncio"):
        run_live(lambda execution: None, "curio")
