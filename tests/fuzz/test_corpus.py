"""What the fuzzer has kept still holds."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import NAMES, inputs, target


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_was_kept(name: str) -> None:
    one = target(name)
    kept = inputs(name)

    assert kept
    for data in kept:
        one(data)
