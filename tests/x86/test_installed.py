"""The extra `x86` is installed, and unicorn is one we know."""

from __future__ import annotations

import pytest


def test_unicorn_is_one_whose_traps_are_known() -> None:
    unicorn = pytest.importorskip("unicorn", reason="needs vkemu[x86]")
    pytest.importorskip("elftools", reason="needs vkemu[x86]")

    assert unicorn.__version__.startswith("2.1.")
