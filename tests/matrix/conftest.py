"""The recorded matrix, and what a test recomputes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from vkemu.matrix import Cell

RECORDED = Path(__file__).parent / "recorded.json"


@pytest.fixture(scope="session")
def recorded() -> list[Cell]:
    return msgspec.json.decode(RECORDED.read_bytes(), type=list[Cell])
