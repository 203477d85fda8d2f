"""Races of other kernels: the mended form passes, exhausted, and the one before it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from vkemu.litmus.file import elsewhere, load_litmus
from vkemu.matrix.elsewhere import cells, source


@pytest.mark.parametrize("path", elsewhere(), ids=lambda path: path.stem)
def test_a_race_of_another_kernel_is_there_before_its_fix_and_not_after(path: Path) -> None:
    litmus, mended, before = cells(path)

    assert litmus.name == path.stem == load_litmus(path.stem).name
    assert [variant.name for variant in litmus.file.variant] == ["before"]
    assert source(path)
    assert (mended.verdict, mended.exhausted) == ("pass", True)
    assert before.verdict == "fail"
