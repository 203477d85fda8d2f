"""The switches that no window turns: a program sees what each changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus, shipped, switches

from vkhost.quirks import AS_IN

# No program sees these (docs/fidelity.md).
UNSEEN = {"fault_page_leaves_busy", "hashed_placemarks"}


@pytest.mark.parametrize("path", switches(), ids=lambda path: path.stem)
def test_a_switch_is_seen_and_its_mended_form_is_as_it_should_be(path: Path) -> None:
    name = path.stem.replace("-", "_")
    odd, mended = load_litmus(path.stem), load_litmus(path.stem, "mended")

    assert getattr(mended.quirks("pv_entry"), name) is AS_IN[name].should
    assert getattr(odd.quirks("pv_entry"), name) is not AS_IN[name].should
    assert decide(odd, "pv_entry").verdict == "fail"
    found = decide(mended, "pv_entry")
    assert (found.verdict, found.result.exhausted) == ("pass", True)


def test_every_switch_is_seen_by_a_program_or_said_not_to_be() -> None:
    texts = [path.read_text() for path in (*shipped(), *switches())]

    assert {name for name in AS_IN if not any(name in text for text in texts)} == UNSEEN
