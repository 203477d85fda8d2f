"""A Dask cluster counts what one process counts, whoever dies."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from vkemu import DaskWorkers, explore
from vkemu.commands.cli import main
from vkemu.exploration import ExplorationError
from vkemu.exploration.result import Result
from vkemu.litmus.decide import Test as LitmusTest
from vkemu.litmus.file import load_litmus
from vkemu.workers import cluster
from vkemu.workers.calls import answered
from vkemu.workers.job import WorkersError

from tests.exploration.divided import broken, lastzero, lost_update
from tests.exploration.literature import readers as local_readers
from tests.workers.calls import square

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    # What Dask leaves open when its processes are killed is its own.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def workers() -> Iterator[DaskWorkers]:
    with cluster.connected("dask-local:2") as there:
        yield there


def test_two_clusters_of_one_machine_do_not_meet(workers: DaskWorkers) -> None:
    with cluster.connected("dask-local:1") as others:
        assert (workers.count, others.count) == (2, 1)


def test_ctrl_c_while_a_cluster_starts_is_heard_when_it_has_started(
    workers: DaskWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Starting:
        def __init__(self, **_: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        def __enter__(self) -> Starting:
            return self

        def __exit__(self, *_: object) -> None:
            closed.append(True)

    monkeypatch.setattr("distributed.LocalCluster", Starting)
    with pytest.raises(KeyboardInterrupt), cluster.connected("dask-local:1"):
        pass
    assert closed == [True]


class Killer:
    """Kills one of the worker processes, again and again, from within the search."""

    def __init__(self, workers: DaskWorkers, seconds: float) -> None:
        self.workers = workers
        self.seconds = seconds
        self.killed = 0
        self.at = monotonic()

    def __call__(self, result: Result) -> None:
        # A slice is an eighth of the age: on a slow machine too it is done before the next time.
        if monotonic() < self.at + max(self.seconds, result.seconds / 4):
            return
        pids = sorted(self.workers._client.run(os.getpid, on_error="ignore").values())
        if len(pids) > 1:
            os.kill(pids[self.killed % 2], signal.SIGKILL)
            self.killed += 1
            self.at = monotonic()


def counts(result: Result) -> tuple[Any, ...]:
    return result.verdict, result.executions, result.failures, result.exhausted


def test_a_search_counts_the_same_though_workers_die(workers: DaskWorkers) -> None:
    assert workers.count == 2
    killer = Killer(workers, 0.1)
    found = explore(partial(lastzero, n=10), workers=workers, progress=killer)
    assert counts(found) == ("pass", 3328, 0, True)
    assert killer.killed
    assert not workers._under_way


def test_a_litmus_test_counts_the_same(workers: DaskWorkers) -> None:
    litmus = load_litmus("W29")
    one, many = LitmusTest(litmus, "bloom"), LitmusTest(litmus, "bloom")
    alone = explore(one, each=one.note)
    shared = explore(many, workers=workers)
    assert counts(shared) == counts(alone)
    assert many.outcomes == one.outcomes


def test_random_executions_and_calls_are_the_same(workers: DaskWorkers) -> None:
    program = partial(lost_update, n=2)
    one = explore(program, strategy="random", seed=7)
    many = explore(program, strategy="random", seed=7, workers=workers)
    assert many.executions == one.executions
    assert one.failure is not None
    assert many.failure is not None
    assert many.failure.token == one.failure.token
    assert list(answered(square, [(n,) for n in range(9)], workers)) == [n * n for n in range(9)]


def test_what_is_wrong_is_one_line(workers: DaskWorkers) -> None:
    with pytest.raises(LookupError, match="no such thing"):
        explore(broken, workers=workers)
    with pytest.raises(ExplorationError, match="cannot import the program"):
        explore(local_readers(3), workers=workers)
    other = DaskWorkers(workers._client)
    other._code = "0" * 16
    with pytest.raises(ExplorationError, match=r"dask: a worker has other code \([0-9a-f]{16}\)"):
        explore(lost_update, workers=other)
    with pytest.raises(WorkersError, match=r"a job was not done.*no_such_function"):
        list(answered(square, [(1,)], Elsewhere(workers._client)))


@pytest.mark.parametrize(
    ("name", "backend", "executions", "failures"),
    [("lost_update", "trio", 4, 2), ("asyncio_failing", "asyncio", 6, 4)],
)
def test_an_async_program_counts_the_same(
    workers: DaskWorkers, name: str, backend: str, executions: int, failures: int
) -> None:
    """Dask's own loop, which is asyncio's, goes on meanwhile."""
    program = getattr(pytest.importorskip("tests.worlds.programs"), name)
    found = explore(program, workers=workers, backend=backend, stop_on_failure=False)
    assert counts(found) == ("fail", executions, failures, True)


class Elsewhere(DaskWorkers):
    def submit(self, job: Any) -> None:
        future = self._client.submit(no_such_function, key=f"{self._name}-x", pure=False)
        self._under_way[future.key] = job.number, future
        self._done.add(future)


def no_such_function() -> None:
    raise NameError("no_such_function")


def test_a_command_works_on_the_cluster(
    workers: DaskWorkers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = workers._client.scheduler.address.replace("tcp://", "dask://")
    argv = ["matrix", "--windows", "W01,W07", "--policies", "pv_entry,vptmapped", "--json"]
    file = tmp_path / "cells"
    assert main([*argv, "--on", where, "--checkpoint", str(file)]) == 1
    there = capsys.readouterr().out
    assert len(file.read_text().splitlines()) == 5
    assert main([*argv, "--jobs", "1"]) == 1
    here = capsys.readouterr().out
    assert without_seconds(there) == without_seconds(here)
    assert main(["run", "quickstart", "--seeds", "3", "--on", where, "--runs", str(tmp_path)]) == 0


def test_the_program_of_the_documentation(workers: DaskWorkers) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    address = workers._client.scheduler.address
    known: dict[str, Any] = {"program": partial(lastzero, n=4)}
    exec(program.replace("tcp://big:8786", address), known)


def without_seconds(text: str) -> list[dict[str, Any]]:
    import msgspec

    return [cell | {"seconds": 0} for cell in msgspec.json.decode(text)]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("dask://localhost", "expected dask://HOST:PORT or dask-local[:N]"),
        ("dask://localhost:0", "expected dask://HOST:PORT"),
        ("dask-local:0", "0, expected 1 to 256"),
        ("spark://x:1", "expected dask://HOST:PORT"),
    ],
)
def test_what_is_no_cluster_is_refused(
    where: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["matrix", "--on", where]) == 2
    assert said in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.2)
    assert main(["explore", "W01", "--on", "dask://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("--on dask://127.0.0.1:9: no scheduler answers")
    assert said.count("\n") == 1


def test_without_dask_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["mutants", "--on", "dask-local:2"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "--on dask-local:2: dask is not installed, expected `pip install 'vkemu[cluster]'`\n"
    )


@pytest.mark.long
def test_searches_count_the_same_though_workers_die(workers: DaskWorkers) -> None:
    from tests.exploration.divided import readers

    for program in (partial(readers, n=13), partial(lastzero, n=10), partial(lastzero, n=12)):
        one = explore(program)
        killer = Killer(workers, 2.0)
        assert counts(explore(program, workers=workers, progress=killer)) == counts(one)
    for window, policy in (("W43", "pv_entry"), ("W02", "shadow"), ("W09", "nested")):
        litmus = load_litmus(window)
        alone, shared = LitmusTest(litmus, policy), LitmusTest(litmus, policy)
        one = explore(alone, each=alone.note, max_steps=litmus.file.litmus.max_steps)
        killer = Killer(workers, 1.0)
        many = explore(
            shared, workers=workers, progress=killer, max_steps=litmus.file.litmus.max_steps
        )
        assert counts(many) == counts(one)
        assert shared.outcomes == alone.outcomes
    programs = pytest.importorskip("tests.worlds.programs")
    options: dict[str, Any] = {"backend": "trio", "stop_on_failure": False}
    one = explore(programs.leaking_pool, **options)
    killer = Killer(workers, 1.0)
    many = explore(programs.leaking_pool, workers=workers, progress=killer, **options)
    two = explore(programs.leaking_pool, jobs=2, **options)
    assert killer.killed
    assert counts(many) == counts(two) == counts(one) == ("fail", 80, 44, True)
