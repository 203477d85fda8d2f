"""The shipped scenarios show what they say, each against its control.

A seed that shows a window is found, not fixed here: what matters is that one of the first few does.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.outcome import Outcome
from vkemu.launch.scenario import load, shipped_names
from vkemu.report.trial import attempt

pytestmark = pytest.mark.slow


def outcomes(name: str, seeds: range, *settings: str) -> list[Outcome]:
    scenario = load(name, settings)
    return [attempt(scenario, seeded(seed)) for seed in seeds]


def failing(name: str, seeds: range, *settings: str) -> int | None:
    """The first seed that fails."""
    scenario = load(name, settings)
    for seed in seeds:
        if attempt(scenario, seeded(seed)).verdict == "fail":
            return seed
    return None


def verdicts(name: str, seeds: range, *settings: str) -> set[str]:
    return {outcome.verdict for outcome in outcomes(name, seeds, *settings)}


def test_quickstart_passes_with_an_exact_reverse_map() -> None:
    assert verdicts("quickstart", range(1, 9)) == {"pass"}


@pytest.mark.parametrize("policy", ["extent_scan", "vptmapped"])
def test_quickstart_fails_with_one_that_cannot_see_vptes(policy: str) -> None:
    assert failing("quickstart", range(1, 30), f"policy={policy}") is not None


def test_corners_passes() -> None:
    assert verdicts("corners", range(1, 3)) == {"pass"}


def test_reclaim_leaks_with_extent_scan_only() -> None:
    assert failing("reclaim-leak", range(1, 10)) is not None
    assert verdicts("reclaim-leak", range(1, 5), "policy=pv_entry") == {"pass"}


def test_clusters_are_laundered_under_a_guest_with_vptmapped_only() -> None:
    assert failing("cluster-launder", range(1, 30)) is not None
    assert verdicts("cluster-launder", range(1, 4), "policy=pv_entry") == {"pass"}


def test_a_late_enter_needs_the_interlock_off() -> None:
    without = ["host.interlock=false"]
    seed = failing("late-enter", range(1, 201), *without)

    assert seed is not None
    assert verdicts("late-enter", range(seed, seed + 1)) == {"pass"}
    assert verdicts("late-enter", range(1, 21)) == {"pass"}


@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan", "vptmapped"])
def test_without_pressure_there_is_nothing_to_see(policy: str) -> None:
    assert verdicts("no-pressure", range(1, 4), f"policy={policy}") == {"pass"}


def test_a_kernel_without_vpagetable_boots_no_guest() -> None:
    (outcome,) = outcomes("no-pressure", range(1, 2), "policy=removed")

    assert outcome.verdict == "unknown"
    assert "cannot boot" in str(outcome.error)


def test_sixteen_guests_pass() -> None:
    assert verdicts("fleet", range(1, 2)) == {"pass"}


def runnable() -> list[str]:
    """The shipped ones; those of machine code need the extra."""
    machine_code = "x86-", "buildworld-"
    installed = importlib.util.find_spec("unicorn") is not None
    return [name for name in shipped_names() if installed or not name.startswith(machine_code)]


@pytest.mark.parametrize("name", runnable())
def test_two_runs_of_a_seed_are_one_schedule(name: str) -> None:
    one, other = (outcomes(name, range(3, 4), "max_steps=20000")[0] for _ in "ab")

    assert one.choices == other.choices
    assert str(one.error) == str(other.error)


def vkemu(cwd: Path, hash_seed: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vkemu", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_failure_is_told_and_replays_to_the_byte_on_another_hash_seed(tmp_path: Path) -> None:
    ran = vkemu(tmp_path, "1", "run", "reclaim-leak", "--seeds", "10")
    command = next(line for line in ran.stdout.splitlines() if " replay: " in line)
    again = vkemu(tmp_path, "2", "replay", command.split()[-1])

    assert (ran.returncode, again.returncode) == (1, 1), ran.stderr + again.stderr
    one, other = tmp_path / "runs/reclaim-leak-1", tmp_path / "runs/reclaim-leak-2"
    for name in ("events.ndjson", "failure.txt", "summary.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for part in (" frame: page ", "owner then ", ", now ", " window: ", "step "):
        assert part in ran.stdout
    assert " write: " in ran.stdout or " read: " in ran.stdout
    assert " alloc: " in ran.stdout or " free: " in ran.stdout
