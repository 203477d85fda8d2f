"""Run folders: whole or not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vkemu.record.rundir import new_run
from vkemu.verdict import UsageError


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def make(root: Path, name: str = "a") -> Path:
    with new_run(root, name) as folder:
        folder.write_text("failure.txt", "words")
    return folder.path


def test_numbers_grow_and_latest_follows(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, "b")
    make(tmp_path)

    assert visible(tmp_path) == ["a-1", "a-2", "b-1", "latest"]
    assert (tmp_path / "latest").readlink() == Path("a-2")


def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "a-7").mkdir()

    assert make(tmp_path).name == "a-8"


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    with new_run(tmp_path, "a") as folder:
        folder.write_json("summary.json", {})
        assert [name for name in visible(tmp_path) if not name.startswith(".")] == []


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> None:
        with new_run(tmp_path, "a") as folder:
            folder.write_json("summary.json", {})
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        broken()

    assert visible(tmp_path) == []


def test_many_at_a_time_do_not_meet(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(tmp_path).name, range(40)))

    assert len(set(made)) == 40
    assert visible(tmp_path) == sorted([*made, "latest"])


def test_a_root_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")

    with pytest.raises(UsageError, match="expected a folder for runs"):
        make(tmp_path / "runs")


def test_a_latest_that_is_no_link_is_said_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()

    with (
        pytest.raises(UsageError, match=r"latest: exists and is no link, expected a link to a run"),
        new_run(tmp_path, "a"),
    ):
        pytest.fail("it ran")
    assert visible(tmp_path) == ["latest"]


def test_a_complete_run_is_kept_when_latest_cannot_point_to_it(tmp_path: Path) -> None:
    def run() -> None:
        with new_run(tmp_path, "a") as folder:
            folder.write_text("failure.txt", "words")
            (tmp_path / "latest").mkdir()

    with pytest.raises(UsageError, match=r"latest: Is a directory.*; the run is .*/a-1$") as raised:
        run()
    assert "\n" not in str(raised.value)
    assert visible(tmp_path) == ["a-1", "latest"]
    assert (tmp_path / "a-1/failure.txt").read_text() == "words"
