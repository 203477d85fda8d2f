from __future__ import annotations

from collections.abc import Iterator

import pytest
from vkprotocol.guarded import checking


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    """Plain fields are only touched under their locks, or the test fails."""
    with checking():
        yield
