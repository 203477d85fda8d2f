"""Races that were publicly reported, found in the packages as they were released."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import known_races

ROOT = Path(__file__).parents[2]
OLD = ROOT / ".venv" / "old"


def hunt(name: str, package: str, *args: str) -> dict[str, Any]:
    """In a process of its own, with an old package before those of the environment."""
    if not (OLD / package).is_dir():
        pytest.skip(f"{OLD / package} is not there: make old")
    done = subprocess.run(
        [sys.executable, "-m", "tests.worlds.known_races", name, *args],
        env={**os.environ, "PYTHONPATH": f"{OLD / package}:{OLD / 'async_timeout-5.0.1'}"},
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=140,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["doubt"] == ""
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [known_races.httpcore_two_hosts, known_races.httpcore_both_cancelled]
)
def test_httpcore_1093_within_a_hundred_executions(program: Any) -> None:
    result = known_races.hunt(program)

    assert result.executions <= 100
    assert result.failure is not None
    assert "a connection leaked: ['CONNECTING']" in result.failure.message


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12, 2), reason="mended after Python 3.12.1")
def test_cpython_112202() -> None:
    result = known_races.hunt(known_races.condition_notify, stop_on_failure=False)

    assert result.exhausted
    assert result.failure is not None
    assert "deadlock" in result.failure.message


@pytest.mark.long
def test_redis_2624_and_its_mending() -> None:
    broken = hunt("redis_cancel", "redis-4.5.1", "dpor", "all")
    mended = hunt("redis_cancel", "redis-4.5.5", "dpor", "all")

    assert broken["exhausted"]
    assert "the answer to another question" in broken["message"]
    assert (mended["verdict"], mended["exhausted"]) == ("pass", True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "broken", "mended"),
    [("anyio_lock", "4.13.0", "4.14.0"), ("anyio_limiter", "4.9.0", "4.14.0")],
)
def test_anyio_1145_and_947(name: str, broken: str, mended: str) -> None:
    found = hunt(name, f"anyio-{broken}", "pos", "stop", "300")
    passed = hunt(name, f"anyio-{mended}", "pos", "stop", "300")

    assert found["verdict"] == "fail"
    assert "deadlock" in found["message"]
    assert passed["failures"] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "broken", "within", "mended", "expected"),
    [
        ("closed_by_another", "trio-0.31.0", 30, "trio-0.32.0", "BrokenResourceError"),
        ("httpcore_one_cancelled", "httpcore-1.0.2", 9, "httpcore-1.0.3", "a connection leaked"),
        ("cache_cleared", "async_lru-2.0.3", 1, "async_lru-2.0.4", "deadlock"),
        ("cache_overfull", "async_lru-2.0.2", 1, "async_lru-2.0.3", "deadlock"),
        ("two_writers", "aiorwlock-1.1.0", 10, "aiorwlock-1.2.0", "two write at once"),
    ],
)
def test_a_reported_race_is_found_and_its_mending_proved(
    name: str, broken: str, within: int, mended: str, expected: str
) -> None:
    found = hunt(name, broken)
    passed = hunt(name, mended, "dpor", "all")

    assert expected in found["message"]
    assert found["executions"] <= within
    assert (passed["verdict"], passed["exhausted"]) == ("pass", True)


@pytest.mark.long
@pytest.mark.parametrize("version", ["0.30.0", "0.31.0", "0.32.0", "0.33.0", "0.34.0"])
def test_every_trio_release_has_what_is_used_of_its_core(version: str) -> None:
    package = OLD / f"trio-{version}"
    if not package.is_dir():
        pytest.skip(f"{package} is not there: make old")
    done = subprocess.run(
        [sys.executable, "-m", "tests.worlds.canary"],
        env={**os.environ, "PYTHONPATH": str(package)},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=140,
    )  # fmt: skip

    assert done.stdout == f"trio {version}: [4, 7, 346]\n"
