"""Filters: the fast way over lines agrees with the plain way over events."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.inspect.filter import Filter
from vkemu.inspect.reader import Log
from vkemu.verdict import UsageError

EVENT = {
    "seq": 7, "t": 1000, "actor": "fault/1", "cpu": None, "guest": "g1", "event": "pte.write",
    "pmap": 3, "va": 0x500000, "old": 0, "ok": True, "pass": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "event=pte.write", "event=pte.*", "event=page.*,pte.*", "event!=page.*", "va=0x500000",
        "va=5242880", "t>=1000", "t<0x1000", "seq>6", "seq<=7", "cpu=null", "ok=true", "guest=g?",
        "actor~ault", "pmap=1,2,3", "pass=2", "event=pte.* va=0x500000 t>=1000", "guest!=g2", "",
    ],
)  # fmt: skip
def test_a_term_that_holds(text: str) -> None:
    assert Filter([text]).matches(EVENT)


@pytest.mark.parametrize(
    "text",
    [
        "event=page.*", "event!=pte.*", "va=0x501000", "t>1000", "cpu=0", "pfn=12", "pfn!=12",
        "actor~vcpu", "guest>3", "event=pte.write seq=8", "ok=false", "old=null",
    ],
)  # fmt: skip
def test_a_term_that_does_not(text: str) -> None:
    assert not Filter([text]).matches(EVENT)


@pytest.mark.parametrize("text", ["event", "=x", "t>=soon", "pfn<12x"])
def test_a_term_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="filter"):
        Filter([text])


def test_a_misspelt_field_is_noted() -> None:
    assert "did you mean pfn?" in Filter(["pfm=3"]).unknown_fields()[0]
    assert Filter(["pfn=3 seq=1 expected=1 last=4"]).unknown_fields() == []


TERMS = st.sampled_from(
    ["event=page.*", "event=mem.store", "pfn=12,513", "pfn>200", "t>=30000", "cpu=null", "cpu=1",
     "guest=g1", "actor!=pagedaemon", "va<0x20000", "value=0", "kind=hard", "vc=null"]
)  # fmt: skip


@pytest.mark.slow
@given(st.lists(TERMS, max_size=4))
def test_lines_and_events_agree(fleet_log: Path, terms: list[str]) -> None:
    chosen = Filter(terms)
    fast = [orjson.loads(line)["seq"] for line in chosen.lines(Log(fleet_log))]

    assert fast == [event["seq"] for event in Log(fleet_log).events() if chosen.matches(event)]
