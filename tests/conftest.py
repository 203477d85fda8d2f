"""What holds for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from vkemu.launch import assemble

from tests import fake_machine
from tests.shell import Shell

# A busy machine is no failure, and what failed once fails again: no deadline, the same examples.
settings.register_profile(
    "vkemu", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vkemu")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


@pytest.fixture(name="fake_machine")
def _fake_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario runs on the fake machine, whatever its guests are."""
    monkeypatch.setattr(assemble, "assemble", fake_machine.assemble)
