from __future__ import annotations

from pathlib import Path

import pytest

from tests.inspect import streams


@pytest.fixture(scope="session")
def fleet_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand events of four guests."""
    return streams.write(tmp_path_factory.mktemp("log") / "events.ndjson", streams.fleet(2000))
