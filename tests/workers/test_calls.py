"""Many calls of one function: in order, once each, and gone on with from a file."""

from __future__ import annotations

import signal
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from random import Random
from typing import Any

import pytest
from vkemu.workers.answers import Answers
from vkemu.workers.calls import AHEAD, Answer, answered
from vkemu.workers.code import code_digest
from vkemu.workers.job import Failed, Kept, WorkersError, performed
from vkemu.workers.processes import Here, Processes, labour

from tests.workers.calls import Waiting, die, refuse, square

QUESTIONS = [(n,) for n in range(20)]


class Torn(Here):
    """As many workers, that are done in any order."""

    count = 4

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = Random(seed)
        self.most = 0

    def submit(self, job: Any) -> None:
        super().submit(job)
        self.most = max(self.most, len(self._jobs))

    def results(self) -> list[Any]:
        self._jobs.rotate(self.rng.randrange(len(self._jobs)))
        return [*super().results(), *(super().results() if self._jobs else [])]


@pytest.mark.parametrize("seed", range(5))
def test_answers_come_in_the_order_of_the_questions(seed: int) -> None:
    workers = Torn(seed)
    told: list[tuple[int, int]] = []
    first = [7, 19, 3]
    found = answered(
        square, QUESTIONS, workers, first=first, tell=lambda done, count: told.append((done, count))
    )
    assert list(found) == [n * n for n in range(20)]
    assert workers.most == AHEAD * 4
    assert told[-1] == (20, 4)


def test_nothing_is_asked_of_nobody() -> None:
    assert list(answered(square, [], Here())) == []


def test_an_error_of_a_call_is_raised() -> None:
    answers = answered(refuse, QUESTIONS, Here())
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no 3"):
        next(answers)


@pytest.mark.slow
def test_processes_answer_and_their_death_is_one_line() -> None:
    workers = Processes(2)
    for number in (7, 8):  # whoever was recalled can be recalled again
        workers.submit(Waiting(number))
        workers.recall()
        workers.recall()
        assert workers.results() == [Answer(number)]
    assert list(answered(square, QUESTIONS, workers)) == [n * n for n in range(20)]
    with pytest.raises(WorkersError, match="a worker process died"):
        list(answered(die, QUESTIONS, workers))
    workers.close()


def test_a_worker_whose_coordinator_died_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = Pipe()
    ours.send((1, b""))
    ours.close()
    labour(theirs)
    theirs.close()


STARTING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, ".")
from vkemu.workers.processes import Processes
try:
    Processes(1, ["interrupts"])
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.slow
def test_ctrl_c_while_processes_start_is_heard_by_who_starts_them(tmp_path: Path) -> None:
    """And by nobody else of the terminal's group."""
    text = "import os, signal; os.killpg(0, signal.SIGINT)"
    (tmp_path / "interrupts.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", STARTING], cwd=tmp_path, capture_output=True, text=True,
        start_new_session=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("heard\n", "", 0)


def test_a_job_that_cannot_be_unpickled_fails_with_its_number() -> None:
    import pickle

    report = pickle.loads(performed(5, b"cno_such_module\nf\n.", Kept()))
    assert isinstance(report, Failed)
    assert report.number == 5
    assert isinstance(report.error, ModuleNotFoundError)


def ask(file: Path, **options: Any) -> list[int]:
    known = Answers(file, "squares", QUESTIONS, int)
    return list(answered(square, QUESTIONS, Here(), known=known, **options))


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    known = Answers(file, "squares", QUESTIONS, int)
    answers = answered(refuse, QUESTIONS, Here(), known=known)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    # Those three are what they were; the others are worked out.
    assert ask(file) == [0, 1, 2, *(n * n for n in range(3, 20))]
    assert ask(file) == [0, 1, 2, *(n * n for n in range(3, 20))]


def test_a_line_that_was_torn_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    ask(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert len(Answers(file, "squares", QUESTIONS, int).values) == 19
    assert ask(file) == [n * n for n in range(20)]
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}\n", "cannot be read"),
        (b"\x80\x04\n", "cannot be read"),
        (b'{"version":1,"what":"cubes","questions":"","code":""}\n', "what is 'cubes', expected"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "answers"
    file.write_bytes(content)
    with pytest.raises(WorkersError, match=f"checkpoint .*{said}"):
        ask(file)


def test_other_questions_and_other_values_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    ask(file)
    with pytest.raises(WorkersError, match="its questions is"):
        Answers(file, "squares", [(1,)], int)
    file.write_bytes(file.read_bytes() + b'{"place":0,"value":"x"}\n')
    with pytest.raises(WorkersError, match="line 22"):
        ask(file)


def test_the_digest_is_that_of_the_code() -> None:
    assert len(code_digest()) == 16
    assert code_digest() == code_digest.__wrapped__()
