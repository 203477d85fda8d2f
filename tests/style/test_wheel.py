"""What `pip install` would put on a user's path."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.style.source import ROOT, modules


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built by the environment's own hatchling: nothing is fetched."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = Path(out).glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.slow
def test_top_level_names_are_exactly_ours(wheel: zipfile.ZipFile) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    ours = {name for name in top if not name.endswith(".dist-info")}

    assert {"vkprotocol", "vkhost", "vkguest", "vkemu"} == ours
    assert len(top) == len(ours) + 1


@pytest.mark.slow
def test_every_module_and_shipped_scenario_is_in_it(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    scenarios = (ROOT / "tools/vkemu/scenarios").glob("*.toml")
    wanted = {module.path.removeprefix("tools/").removeprefix("protocol/") for module in modules()}
    wanted |= {f"vkemu/scenarios/{file.name}" for file in scenarios}

    assert wanted - inside == set()


@pytest.mark.slow
def test_no_test_is_in_it(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if "/test_" in name or "tests/" in name] == []
