"""A window is told in three places, and its numbers are the same in all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from vkemu.inspect.windows import ACCESSES, Window
from vkemu.report.failure import POSITIONS

WINDOW = re.compile(
    r"^ window: (?P<kind>[a-z-]+), (?:open from step (?P<from>\d+) on|steps (?P<opens>\d+) to"
    r" (?P<closes>\d+)), (?P<width>[\d,]+) steps wide$",
    re.MULTILINE,
)
MOVED = re.compile(r"^ moved:  (?P<said>.*(?:\n         .*)*)$", re.MULTILINE)


def same_numbers(failure_txt: str, page: str, found: Iterable[Window]) -> None:
    """Of failure.txt, report.html and `log windows` (its windows, or what finds them)."""
    said = WINDOW.search(failure_txt)
    assert said is not None, failure_txt
    run = json.loads(page.partition('id="run">')[2].partition("</script>")[0])
    window = run["window"]
    width = int(said["width"].replace(",", ""))
    opens = int(said["from"] or said["opens"])
    assert (window["kind"], window["opens"], window["width"]) == (said["kind"], opens, width)
    assert window["closes"] == opens + width
    assert window["staysOpen"] == (said["from"] is not None)
    assert said["closes"] is None or window["closes"] == int(said["closes"])
    told = {name: text for name, text, _ in run["facts"]}
    assert said[0].removeprefix(" window: ") == told["window"]
    moved = MOVED.search(failure_txt)
    assert (moved is None) == ("moved" not in told)
    assert moved is None or " ".join(moved["said"].split()) == told["moved"]
    if said["kind"] == ACCESSES:
        assert {a["step"] for a in run["accesses"][:2]} == {window["opens"], window["closes"]}
    if said["kind"] in (ACCESSES, POSITIONS):
        return
    assert [w for w in found if (w.kind, w.opened_step, w.steps) == (said["kind"], opens, width)]
