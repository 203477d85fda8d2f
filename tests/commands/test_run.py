"""`vkemu run` and `vkemu replay`, on a machine whose every schedule is known."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vkemu.executors.chance import seeded
from vkemu.record import rundir, token

from tests.shell import TWO_GUESTS, Shell

pytestmark = pytest.mark.usefixtures("fake_machine")
RACY = ["--policy", "vptmapped"]


def names_in(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def losing_seed(shell: Shell, path: str) -> int:
    shell("run", path, *RACY, "--seeds", "50", "--json", "--runs", "search")
    return int(json.loads(Path("search/latest/summary.json").read_text())["seed"])


def test_a_pass_exits_0_and_leaves_a_folder(shell: Shell) -> None:
    status, out, err = shell("run", shell.write("two.toml", TWO_GUESTS))

    assert (status, err) == (0, "")
    assert out.startswith("pass: two, policy pv_entry, seed 1: 2 steps")
    assert {"events.ndjson", "summary.json", "scenario.json"} == names_in("runs/latest")
    assert Path("runs/latest").readlink() == Path("two-1")


def test_a_violation_exits_1_and_prints_its_replay(shell: Shell) -> None:
    path = shell.write("two.toml", TWO_GUESTS)

    status, out, _ = shell("run", path, *RACY, "--seeds", "50")

    assert status == 1
    assert "word is 1, not 2" in out
    assert "an update is lost" in out
    failure = Path("runs/latest/failure.txt").read_text()
    assert failure in out
    assert f"replay: vkemu replay {token.PREFIX}" in failure


def test_a_step_bound_is_unknown_and_exits_3(shell: Shell) -> None:
    status, out, _ = shell("run", shell.write("two.toml", TWO_GUESTS), "--max-steps", "1")

    assert status == 3
    assert "unknown" in out


def test_replay_gives_the_same_failure_and_the_same_bytes(shell: Shell) -> None:
    path = shell.write("two.toml", TWO_GUESTS)
    seed = losing_seed(shell, path)
    shell("run", path, *RACY, "--seed", str(seed))
    first = Path("runs/two-1")

    word = json.loads((first / "summary.json").read_text())["token"]
    by_token, _, _ = shell("replay", word)
    by_folder, _, _ = shell("replay", "runs/two-1")

    assert (by_token, by_folder) == (1, 1)
    for again in (Path("runs/two-2"), Path("runs/two-3")):
        for name in ("events.ndjson", "failure.txt", "summary.json"):
            assert (first / name).read_bytes() == (again / name).read_bytes()


def test_json_is_the_summary_and_nothing_else(shell: Shell) -> None:
    _, out, err = shell("run", shell.write("two.toml", TWO_GUESTS), "--json")

    assert err == ""
    assert json.loads(out) == json.loads(Path("runs/latest/summary.json").read_text())
    assert json.loads(out)["verdict"] == "pass"


def test_events_say_who_did_what_in_order(shell: Shell) -> None:
    shell("run", shell.write("two.toml", TWO_GUESTS), *RACY)

    lines = list(map(json.loads, Path("runs/latest/events.ndjson").read_text().splitlines()))

    assert [line["seq"] for line in lines] == list(range(4))
    assert {line["actor"] for line in lines} == {"g1.vcpu0", "g2.vcpu0"}
    assert {line["run"] for line in lines} == {"two/vptmapped/1"}
    assert all(line["ts"].startswith("2000-01-01T00:00:00.") for line in lines)
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_a_changed_scenario_is_said_and_not_misreplayed(shell: Shell) -> None:
    path = shell.write("two.toml", TWO_GUESTS)
    shell("run", path)
    word = json.loads(Path("runs/latest/summary.json").read_text())["token"]
    shell.write("two.toml", TWO_GUESTS.replace("1M", "2M"))

    status, _, err = shell("replay", word, "--runs", "elsewhere")

    assert status == 2
    assert err.startswith("replay: two.toml: has changed since this token was made")


def test_a_moved_scenario_is_found_in_the_run_that_kept_it(shell: Shell) -> None:
    path = shell.write("two.toml", TWO_GUESTS)
    shell("run", path)
    word = json.loads(Path("runs/latest/summary.json").read_text())["token"]
    Path(path).unlink()

    status, _, _ = shell("replay", word)

    assert status == 0


def test_changed_kernels_are_said_and_not_misreplayed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("run", shell.write("two.toml", TWO_GUESTS))
    monkeypatch.setattr(token, "model_digest", lambda: b"another")

    status, _, err = shell("replay", "runs/latest")

    assert status == 2
    assert err.startswith("replay: the kernels have changed since this token was made")


def test_a_schedule_that_does_not_fit_diverges(shell: Shell) -> None:
    shell("run", shell.write("two.toml", TWO_GUESTS))
    found = token.parse(json.loads(Path("runs/latest/summary.json").read_text())["token"])
    fields = {name: getattr(found, name) for name in found.__struct_fields__}
    wrong = token.Token(**fields | {"seed": found.seed, "steps": found.steps + 1})

    status, _, err = shell("replay", str(wrong))

    assert status == 2
    assert err.startswith("replay: diverged")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["rum"],
        ["run"],
        ["run", "two.toml", "--seed", "x"],
        ["run", "two.toml", "--seed", "-1"],
        ["run", "two.toml", "--seeds", "0"],
        ["run", "two.toml", "--set", "= 3"],
        ["run", "two.toml", "--nonsense"],
        ["replay", "vk1.abc"],
        ["replay", "vk1.!"],
        ["replay", "vk9.abc"],
        ["replay", "runs/latest"],
    ],
)
def test_usage_errors_are_one_line_and_exit_2(shell: Shell, argv: list[str]) -> None:
    shell.write("two.toml", TWO_GUESTS)

    status, out, err = shell(*argv)

    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_help_names_every_command(shell: Shell) -> None:
    status, out, _ = shell("--help")

    assert status == 0
    for name in ("run", "explore", "replay", "matrix", "compare", "log", "serve", "guest"):
        assert f"\n  {name} " in out


def test_nothing_half_written_is_left_when_a_run_is_interrupted(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seed: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vkemu.commands.run.seeded", lambda seed: interrupted)
    status, _, _ = shell("run", shell.write("two.toml", TWO_GUESTS))

    assert status == 130
    assert names_in("runs") == set()
    assert seeded(1)([7]) == 7


def test_help_imports_nothing_that_takes_time() -> None:
    heavy = "{'rich', 'structlog', 'trio', 'anyio', 'msgspec', 'orjson', 'vkhost', 'vkguest'}"
    program = "import sys; from vkemu.commands.cli import main; main(['--help'])\n"
    program += f"print({heavy} & {{*sys.modules}})"
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert ended.stdout.endswith("\nset()\n")


def test_a_full_disk_is_one_line_beside_the_verdict_and_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rundir.RunFolder, "write_json", full)
    shell.write("s.toml", TWO_GUESTS)

    status, out, err = shell("run", "s.toml")
    assert (status, err) == (0, "")
    assert "pass: " in out
    assert out.endswith("No space left on device\n")
    assert list((shell.cwd / "runs").iterdir()) == []


def test_latest_that_is_no_link_stays_as_it_is(shell: Shell) -> None:
    (shell.cwd / "runs" / "latest").mkdir(parents=True)
    shell.write("s.toml", TWO_GUESTS)

    status, out, err = shell("run", "s.toml")

    assert (status, out) == (2, "")
    assert err == "runs/latest: exists and is no link, expected a link to a run\n"
    assert [entry.name for entry in (shell.cwd / "runs").iterdir()] == ["latest"]


def test_a_terminal_of_ascii(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f'about = "\u00e9\u00e9n host"\n{TWO_GUESTS}', "utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = subprocess.run(
        [sys.executable, "-m", "vkemu", "run", "s.toml", "--mutant", "walk-without-m"],
        cwd=tmp_path, env=environment | {"PYTHONIOENCODING": "ascii"}, capture_output=True,
        check=False,
    )  # fmt: skip

    assert b"s: \\xe9\\xe9n host" in done.stdout
    assert done.returncode in (0, 1), done.stderr
