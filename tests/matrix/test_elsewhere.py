"""Races of other kernels: the mended form passes, exhausted, and the one before it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs
from vkemu import explore
from vkemu.litmus import decide
from vkemu.litmus.document import OutcomeTable
from vkemu.litmus.file import build, elsewhere, load_litmus
from vkemu.matrix.elsewhere import cells, source


@pytest.mark.parametrize("path", elsewhere(), ids=lambda path: path.stem)
def test_a_race_of_another_kernel_is_there_before_its_fix_and_not_after(path: Path) -> None:
    litmus, mended, before = cells(path)

    assert litmus.name == path.stem == load_litmus(path.stem).name
    assert [variant.name for variant in litmus.file.variant] == ["before"]
    assert source(path)
    assert (mended.verdict, mended.exhausted) == ("pass", True)
    assert before.verdict == "fail"


def test_a_freed_table_is_made_anew_and_what_it_costs_is_told() -> None:
    """After `free_table` a load faults, links another page, and reads what was there."""
    litmus = load_litmus("kvm-zap-page")
    user, scan = litmus.file.thread
    order = structs.replace(user, run=("r0 = load a", "post 1", "await 2", "r1 = load a"))
    frees = structs.replace(
        scan, run=("await 1", "r0 = free_table X", "r1 = free_table X", "post 2")
    )
    outcome = OutcomeTable(allowed="U.r0 == 1 and U.r1 == 1 and S.r0 == 1 and S.r1 == 0")
    file = structs.replace(litmus.file, thread=(order, frees), outcome=outcome)
    linked: list[int] = []

    def hear(name: str, /, *fields: object) -> None:
        if name in ("ept.link", "ept.free") and fields[1] == 1:
            linked.append(int(str(fields[2])) if name == "ept.link" else -int(str(fields[2])))

    test = decide.Test(build(file, "freed.toml"), "nested", hear)
    assert explore(test, strategy="random", max_executions=1).verdict == "pass"
    assert linked[-3:] == [1, -1, 2]
