"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from vkemu.commands.arguments import OWN_POLICIES
from vkemu.launch import assemble

from tests import fake_machine
from tests.shell import Shell
from vkhost.rmap import POLICIES

# A busy machine is no failure, and what failed once fails again: no deadline, the same examples.
settings.register_profile(
    "vkemu", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vkemu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Async programs first: each search looks at all that its process has loaded and keeps, and
    after thousands of tests that is five times as much."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/worlds/"))


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


@pytest.fixture(autouse=True)
def _a_reverse_map_of_ones_own_ends_with_its_test() -> Iterator[None]:
    """--policy FILE.py makes one known to the whole process, so to every test after it."""
    known, own = dict(POLICIES), set(OWN_POLICIES)
    yield
    POLICIES.clear()
    POLICIES.update(known)
    OWN_POLICIES.clear()
    OWN_POLICIES.update(own)
