"""The lnav format and the jq recipes, run with lnav and jq where they are installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from vkemu.inspect.reader import Log
from vkemu.inspect.shipped import FILES, path

lnav = pytest.mark.skipif(shutil.which("lnav") is None, reason="no lnav is installed")
jq = pytest.mark.skipif(shutil.which("jq") is None, reason="no jq is installed")


def test_all_are_there() -> None:
    assert all(path(name).is_file() for name in FILES)


def test_the_lnav_format_names_fields_that_lines_have(fleet_log: Path) -> None:
    """What lnav's own schema demands, without lnav."""
    (name, form), *more = [
        item
        for item in json.loads(path("lnav/vkemu_log.json").read_text()).items()
        if item[0] != "$schema"
    ]
    first = next(iter(Log(fleet_log).events()))

    assert (name, more) == ("vkemu_log", [])
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert form["json"] is True
    assert re.search(form["file-pattern"], "runs/latest/events.ndjson")
    for key in ("timestamp-field", "level-field", "opid-field"):
        assert form[key] in first
    kinds = {"string", "integer", "float", "boolean", "json", "quoted", "timestamp"}
    assert {value["kind"] for value in form["value"].values()} <= kinds
    # lnav makes columns of them without quoting: a word of SQL would cost the whole table.
    assert not {"set", "end", "pass", "offset", "exclusive"} & set(form["value"])
    shown = [part["field"] for part in form["line-format"] if isinstance(part, dict)]
    assert all(field in form["value"] for field in shown if not field.startswith("__"))


@pytest.mark.slow
@lnav
def test_lnav_takes_every_line(fleet_log: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TERM": "xterm"}
    installed = subprocess.run(
        ["lnav", "-i", str(path("lnav/vkemu_log.json"))],
        env=home, capture_output=True, text=True, check=True, timeout=40,
    )  # fmt: skip
    assert "installed" in installed.stdout + installed.stderr
    sql = "SELECT event, count(*) AS n FROM vkemu_log GROUP BY event"
    told = subprocess.run(
        ["lnav", "-n", "-c", f";{sql}", "-c", ":write-json-to -", str(fleet_log)],
        env=home, capture_output=True, text=True, check=True, timeout=40,
    )  # fmt: skip

    counts = {row["event"]: row["n"] for row in json.loads(told.stdout)}
    assert counts == Counter(event["event"] for event in Log(fleet_log).events())


def ask(recipe: str, log: Path, *options: str) -> list[Any]:
    done = subprocess.run(
        ["jq", "-L", str(path("jq/vkemu.jq").parent), *options, f'include "vkemu"; {recipe}', log],
        capture_output=True, text=True, check=True, timeout=40,
    )  # fmt: skip
    return [line if "-r" in options else json.loads(line) for line in done.stdout.splitlines()]


@jq
def test_jq_a_page(fleet_log: Path) -> None:
    told = {event["seq"] for event in ask("page(12)", fleet_log, "-c")}
    wanted = {
        event["seq"]
        for event in Log(fleet_log).events()
        if event.get("pfn") == 12
        or (event["event"] == "pte.write" and 12 in (event["old"] >> 12, event["new"] >> 12))
    }

    assert told == wanted


@jq
def test_jq_an_address(fleet_log: Path) -> None:
    va = next(e["va"] for e in Log(fleet_log).events() if e["event"] == "fault.begin")
    told = ask(f"at({va})", fleet_log, "-c")

    assert told
    assert all(
        event.get("va") == va or event.get("start", va + 1) <= va < event.get("end", 0)
        for event in told
    )


@jq
def test_jq_counts_and_invals(fleet_log: Path) -> None:
    events = list(Log(fleet_log).events())
    counted = dict(reversed(line.split("\t")) for line in ask("counts", fleet_log, "-n", "-r"))
    invals = ask("invals", fleet_log, "-n", "-c")

    assert {k: int(n) for k, n in counted.items()} == Counter(e["event"] for e in events)
    assert len(invals) == sum(event["event"] == "inval.end" for event in events)
    assert {inval["width"] for inval in invals} == {7}


@jq
def test_jq_freed_while_mapped(fleet_log: Path) -> None:
    from vkemu.inspect.windows import windows

    told = ask("freed_while_mapped", fleet_log, "-n", "-c")
    wanted = {w.opened for w in windows(Log(fleet_log)) if w.kind == "free-to-unmap"}

    assert wanted <= {found["seq"] for found in told}
    assert all(found["ptes"] for found in told)


@jq
def test_jq_lines(fleet_log: Path) -> None:
    lines = ask('event("page.") | line', fleet_log, "-r")

    assert lines
    assert all(re.fullmatch(r"\d+\t\S+\tpage\.\w+\t.*", line) for line in lines)
