"""docs/reading-runs.md does what it says: its Python runs, its commands are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from vkemu.commands.cli import main
from vkemu.inspect.reader import Log

PAGE = (Path(__file__).parents[2] / "docs" / "reading-runs.md").read_text()


@pytest.mark.slow
def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("backports.zstd")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)

    logged = list(Log(Path("runs/quickstart-1")).events())
    assert {event["event"] for event in logged} <= {"fault.begin", "fault.retry", "fault.end"}
    assert {event["experiment"] for event in logged} == {"e7"}
    assert Path("runs/quickstart-2/events.ndjson").read_bytes() == b""


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`vkemu ((?:log )?\w+)", PAGE))))
def test_every_command_of_the_page_is_there(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), "--help"])
    assert "usage: vkemu" in capsys.readouterr().out
