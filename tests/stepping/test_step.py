"""`vkemu step`: the model forward and back, and the terminal application under textual's pilot."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable
from copy import deepcopy
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.commands.cli import main
from vkemu.executors.controlled import Choose
from vkemu.oracle.violation import Violation
from vkemu.record import token
from vkemu.stepping import step_token
from vkemu.stepping.stages import Subject
from vkemu.stepping.stepper import Stepper
from vkemu.verdict import UsageError

from tests.report import w07

textual = pytest.importorskip("textual")


class Staged(w07.Machine):
    """The W07 story, to be stepped by hand."""

    def __init__(self) -> None:
        super().__init__(self.first)

    @staticmethod
    def first(_execution: object) -> Choose:
        return min

    def end(self) -> BaseException | None:
        return self.execution.deadlock()


@pytest.fixture(scope="module")
def failing() -> list[int]:
    return w07.find()[0].recording.schedule


def snapshot(stepper: Stepper) -> object:
    return deepcopy(
        (
            stepper.choices,
            [(option.actor, option.effect, option.where) for option in stepper.options()],
            stepper.waiting(),
            stepper.machine.state,
            stepper.changes,
            stepper.over,
        )
    )


def test_by_hand_into_the_violation(failing: list[int]) -> None:
    stepper = Stepper(Staged)
    for tid in failing:
        assert not stepper.over
        stepper.take(tid)

    assert stepper.over
    assert isinstance(stepper.error, Violation)
    assert stepper.options() == []


@pytest.mark.slow
@given(st.data())
def test_back_is_where_we_were(data: st.DataObject) -> None:
    stepper = Stepper(Staged)
    seen = [snapshot(stepper)]
    for _ in range(data.draw(st.integers(1, 12))):
        options = stepper.options()
        if not options:
            break
        stepper.take(data.draw(st.sampled_from(options)).tid)
        seen.append(snapshot(stepper))
    count = data.draw(st.integers(0, len(seen) - 1))
    stepper.back(count)

    assert snapshot(stepper) == seen[-1 - count]


def test_what_cannot_go_cannot_be_taken() -> None:
    stepper = Stepper(Staged)

    with pytest.raises(ValueError, match="cannot go"):
        stepper.take(99)
    assert stepper.choices == []


def test_who_waits_is_said() -> None:
    stepper = Stepper(Staged)

    assert {w.actor for w in stepper.waiting()} == {"vcpu0@guest1", "pagedaemon", "fault/2"}
    assert "wait pte.1.1280" in {w.effect for w in stepper.waiting()}


def test_finish_and_stay(failing: list[int]) -> None:
    stepper = Stepper(Staged)
    stepper.take(stepper.options()[0].tid)
    stepper.stay()
    assert len(set(stepper.choices)) == 1
    stepper.finish()

    assert stepper.over


def drive(
    script: Callable[..., Awaitable[None]], tmp_path: Path, stage: Callable[[], object] = Staged
) -> None:
    """Run the application without a terminal, and `script(app, pilot)` against it."""
    from vkemu.stepping.step_app import StepApp

    async def run() -> None:
        stepper = Stepper(stage)  # type: ignore[arg-type]
        app = StepApp(
            stepper,
            "w07",
            lambda s: "vks1.word" if s.error is None else "vk1.word",
            tmp_path / "token",
        )
        async with app.run_test(size=(140, 50)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(run())


def text_of(app: object, selector: str) -> str:
    from textual.widgets import Static

    return str(app.query_one(selector, Static).render())  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_application_steps_and_steps_back(tmp_path: Path) -> None:
    async def script(app: object, pilot: object) -> None:
        stepper = app.stepper  # type: ignore[attr-defined]
        press = pilot.press  # type: ignore[attr-defined]
        assert text_of(app, "#changed") == "nothing yet: below is the set-up"
        await press("enter", "enter")
        assert stepper.choices == [1, 1]
        assert "vpte page 40[0]" in text_of(app, "#ptes")
        await press("1", "1")
        assert len(stepper.choices) == 4
        assert "busy: none -> hard, fault/1" in text_of(app, "#changed")
        await press("b")
        assert len(stepper.choices) == 3
        await press("B")
        assert stepper.choices == []
        await press("c", "1", "c")
        assert len(stepper.choices) > 5
        assert "pte 0x500000@1: page 12 RW A M" in text_of(app, "#ptes")
        await press("0")
        assert stepper.choices == []

    drive(script, tmp_path)


@pytest.mark.slow
def test_the_application_saves_a_token(tmp_path: Path, failing: list[int]) -> None:
    async def script(app: object, pilot: object) -> None:
        stepper = app.stepper  # type: ignore[attr-defined]
        stepper.replay(failing[:-1])
        app.show()  # type: ignore[attr-defined]
        (tid,) = {failing[-1]}
        index = [option.tid for option in stepper.options()].index(tid)
        await pilot.press(str(index + 1))  # type: ignore[attr-defined]
        assert stepper.over
        await pilot.press("s")  # type: ignore[attr-defined]
        assert (tmp_path / "token").read_text() == "vk1.word\n"

    drive(script, tmp_path)


@pytest.mark.slow
def test_the_application_saves_a_token_anywhere(tmp_path: Path) -> None:
    """It ran on to the end in a copy, and saved nothing when that was no failure."""

    async def script(app: object, pilot: object) -> None:
        await pilot.press("1", "s")  # type: ignore[attr-defined]
        assert not app.stepper.over  # type: ignore[attr-defined]
        assert (tmp_path / "token").read_text() == "vks1.word\n"

    drive(script, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "policy"), [("W24", "wired"), ("late-enter", None)])
def test_a_token_leads_to_where_it_was_saved(source: str, policy: str | None) -> None:
    subject = Subject(source, policy)
    stepper = subject.stepper()
    for n in (0, 1, 0, 2, 1):
        options = stepper.options()
        stepper.take(options[n % len(options)].tid)
    word = subject.token(stepper)
    found, there = Subject.at(word)

    assert word.startswith("vks1.")
    assert snapshot(there) == snapshot(stepper)
    assert found.name == subject.name
    there.back(2)
    assert Subject.at(found.token(there))[1].choices == stepper.choices[:3]


@pytest.mark.parametrize("change", ["identity", "model", "choices"])
def test_a_token_of_something_else_is_refused(change: str) -> None:
    subject = Subject("W24", "wired")
    found = step_token.parse(subject.token(subject.stepper()))
    other = {
        "identity": "0" * 12, "model": b"x", "choices": token.pack(array("H", [77])),
    }  # fmt: skip
    changed = msgspec.structs.replace(found, **{change: other[change]})
    with pytest.raises(UsageError, match=r"changed since|thread 77 cannot go"):
        Subject.at(str(changed))


@pytest.mark.slow
def test_a_litmus_test_can_be_stepped_and_its_token_replays(tmp_path: Path) -> None:
    """W01 without the interlock, by hand: A walks to its end, B takes the page, A enters."""
    from vkemu import replay
    from vkemu.litmus import token as litmus_token
    from vkemu.litmus.decide import Test

    subject = Subject("W01", "vptmapped", "interlock-off")
    stepper = subject.stepper()
    a, b = (option.tid for option in stepper.options())
    for inside in range(60):
        stepper.replay([])
        for _ in range(inside):
            stepper.take(a)
        while b in stepper.execution.runnable and not stepper.over:
            stepper.take(b)
        stepper.finish()
        if stepper.error is not None:
            break

    assert isinstance(stepper.error, Violation)
    word = subject.token(stepper)
    assert word is not None
    found = litmus_token.parse(word)
    assert replay(Test(found.litmus(), found.policy), found.schedule).message


def test_without_a_terminal_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", "W01"]) == 2
    assert capsys.readouterr().err == "vkemu step: no terminal, expected one to step in\n"


def test_a_saved_token_replays_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = Subject("W24", "wired")
    stepper = subject.stepper()
    stepper.take(stepper.options()[0].tid)
    (tmp_path / "step.token").write_text(subject.token(stepper) + "\n")

    assert main(["replay", str(tmp_path / "step.token")]) == 3
    assert capsys.readouterr().out.endswith("1 steps: it goes on\n")
