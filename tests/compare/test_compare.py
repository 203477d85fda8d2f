"""`vkemu compare`: the counts are those of the kernel, the fit finds known growths, the page stands
alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.commands.cli import main
from vkemu.commands.compare import COMPARED
from vkemu.compare import AXES, growth, measure
from vkemu.compare.costs import COSTS, nanoseconds
from vkemu.compare.measure import Sample, Series
from vkemu.compare.page import BROKEN, COLOURS, DARK, HEIGHT, STYLE, render, tick
from vkemu.compare.situation import Shape, Situation

from vkhost.pc64.pmap import pmap_remove_all
from vkhost.rmap import POLICIES

SIZES = (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7] * 7, "O(1)"),
        ([0] * 7, "O(1)"),
        ([40 + i for i in range(7)], "O(1)"),
        ([10 + 30 * n for n in SIZES], "O(n)"),
        ([5000 + 200 * n for n in SIZES], "O(n)"),
        ([9 * n * n for n in SIZES], "O(n^2.0)"),
        ([10 * (i + 1) for i in range(7)], "O(log n)"),
        ([64 - n for n in SIZES], "O(1)"),
    ],
)
def test_growth(values: list[int], expected: str) -> None:
    assert growth(SIZES, values, "n") == expected


@given(st.integers(0, 10_000), st.integers(100, 1000))
def test_a_constant_part_does_not_hide_a_linear_one(a: int, b: int) -> None:
    assert growth(SIZES, [a + b * n for n in SIZES], "n") in ("O(n)", "O(1)")
    if 64 * b > a:
        assert growth(SIZES, [a + b * n for n in SIZES], "n") == "O(n)"


def test_every_policy_that_lets_a_vkernel_boot_is_compared() -> None:
    assert set(COMPARED) == set(POLICIES) - {"removed"}


@pytest.mark.parametrize("policy", COMPARED)
def test_a_situation_is_what_it_says(policy: str) -> None:
    situation = Situation(policy, Shape(guests=2, vmspaces=3, pages=5, mappings=4))

    # Of nested paging: what the first CPU has in its TLB, of the one process that it runs.
    assert situation.resident() == (5 + 3 if policy == "nested" else 2 * 3 * 5 + 2 * 3)
    hot = situation.guests[0].pages[0]
    assert hot.object is situation.guests[0].image
    assert hot.pindex == situation.guests[0].first_page


@pytest.mark.parametrize("policy", ["pv_entry", "vpte_list", "bloom", "notifier", "shadow"])
def test_an_exact_policy_takes_away_what_it_was_asked_to(policy: str) -> None:
    for sample in measure("mappings", policy, quick=True).samples:
        counts = sample.counts
        assert counts["refaults"] == counts["left"] == 0
        assert counts["written"] == counts["ipis"] == sample.size


def test_nested_takes_one_pte_and_flushes_all_of_every_cpu() -> None:
    for sample in measure("mappings", "nested", quick=True).samples:
        counts = sample.counts
        assert counts["visited"] == counts["written"] == counts["ipis"] == 1
        assert counts["refaults"] == counts["left"] == 0
        assert counts["loads"] == 24 * 63  # the other pages, walked again
    for sample in measure("vcpus", "nested", quick=True).samples:
        assert sample.counts["ipis"] == sample.size
        assert sample.counts["loads"] == 24 * 63 * sample.size


@pytest.mark.parametrize(("policy", "loads"), [("pv_entry", 4), ("nested", 24)])
def test_a_miss_is_a_walk(policy: str, loads: int) -> None:
    for sample in measure("misses", policy, quick=True).samples:
        assert sample.counts["loads"] == loads * sample.size
        assert sample.counts["left"] == 0


def test_broadcast_takes_all_of_the_process_too() -> None:
    for sample in measure("mappings", "broadcast", quick=True).samples:
        assert sample.counts["refaults"] == 63
        assert sample.counts["left"] == 0


@pytest.mark.parametrize("policy", ["extent_scan", "vptmapped"])
def test_what_costs_nothing_does_nothing(policy: str) -> None:
    for sample in measure("mappings", policy, quick=True).samples:
        assert sample.counts["left"] == sample.size


def test_wired_pins_what_it_maps() -> None:
    for sample in measure("guests", "wired", quick=True).samples:
        assert sample.counts["pinned"] == 64 * sample.size


def test_only_the_notifier_starts_faults_again() -> None:
    retries = {
        policy: sum(s.counts["retries"] for s in measure("race", policy).samples)
        for policy in ("pv_entry", "notifier")
    }

    assert retries["pv_entry"] == 0
    assert retries["notifier"] > 0


def test_shadow_pays_a_fault_for_each_edit_and_takes_away_nothing_else() -> None:
    samples = measure("edits", "shadow", quick=True).samples

    assert [s.counts["exits"] for s in samples] == [s.size + 1 for s in samples]  # and the INVAL
    assert [s.counts["written"] for s in samples] == [s.size for s in samples]
    assert all(s.counts["refaults"] == s.counts["left"] == 0 for s in samples)


def test_a_count_is_that_of_the_operation_alone() -> None:
    situation = Situation("vpte_list", Shape())
    m = situation.guests[0].pages[1]
    m.busy_count.state |= 1 << 31
    before = situation.kernel.rmap.visited

    counts = situation.counted(lambda: situation.do(pmap_remove_all(m)), asked=1)

    assert counts["visited"] == situation.kernel.rmap.visited - before
    assert counts["written"] == 1


def test_time_is_the_sum_of_the_costs() -> None:
    counts = dict.fromkeys(COSTS, 3) | {"visited": 99}

    assert nanoseconds(counts) == 3 * sum(cost.ns for cost in COSTS.values())


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES)
def test_measuring_twice_gives_the_same(axis: str) -> None:
    assert measure(axis, "bloom", quick=True) == measure(axis, "bloom", quick=True)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "compare.html"
    status = main(
        ["compare", "--quick", "--jobs", "1", "--axis", "guests,mappings",
         "--policies", "broadcast,vpte_list", "--json", "--html", str(page)]
    )  # fmt: skip

    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [(s["axis"], s["policy"]) for s in found["series"]] == [
        (axis, policy) for axis in ("guests", "mappings") for policy in ("broadcast", "vpte_list")
    ]
    text = page.read_text()
    assert text.count("<svg") == 2
    assert not re.search(r"(src|href)=|url\(|<script|@import", text)


def test_text_says_growth_and_claims(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--axis", "mappings", "--policies", "vpte_list", "--jobs", "1"]) == 0

    out = capsys.readouterr().out
    assert "mappings: reclaim of a page that is mapped n times" in out
    assert "measured O(k): agrees" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--axis", "x"], "--axis: 'x', expected one of guests"),
        (["--policies", "removed"], "--policies: 'removed', expected one of"),
        (["--jobs", "0"], "--jobs: 0"),
    ],
)
def test_bad_input(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *argv]) == 2
    assert said in capsys.readouterr().err


def test_every_one_of_64_cpus_is_interrupted() -> None:
    assert AXES["vcpus"].sizes[-1] == AXES["guests"].sizes[-1] == 64
    situation = Situation("pv_entry", Shape(vcpus=64, pages=1))

    counts = situation.counted(lambda: situation.do(situation.reclaim()), asked=1)

    assert counts["ipis"] == 64
    assert counts["left"] == 0


def series(policy: str, *ns: int) -> Series:
    samples = tuple(Sample(2**i, {}, cost) for i, cost in enumerate(ns))
    return Series("guests", policy, samples, "O(1)", {})


def test_a_tick_says_what_it_stands_at() -> None:
    units = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
    for exponent in range(12):
        digits, unit = tick(exponent).split()
        assert int(digits) * units[unit] == 10**exponent


@given(st.lists(st.integers(0, 10**10), min_size=2, max_size=2))
def test_every_line_lies_between_the_ticks(ns: list[int]) -> None:
    page = render([series("pv_entry", *ns)], [])

    heights = [float(y) for y in re.findall(r'<line [^>]*?y1="([-\d.]+)"', page)]
    assert all(0 <= y <= HEIGHT for y in heights)


def test_lines_that_coincide_are_stripes_of_each() -> None:
    page = render([series("bloom", 9, 9), series("pv_entry", 9, 9), series("wired", 9, 900)], [])

    dashes = re.findall(r'stroke-dasharray="7 (\d+)" stroke-dashoffset="(-?\d+)"', page)
    assert dashes == [("7", "0"), ("7", "-7")]


def test_a_policy_that_fails_its_windows_is_marked_beside_its_curve() -> None:
    assert set(BROKEN) == set(POLICIES)
    page = render([series(policy, 9, 9) for policy in COMPARED], [])

    for policy in COMPARED:
        (label,) = re.findall(rf"<text [^>]*>{policy}(.*?)</text>", page)
        assert ("unsound: " + "".join(BROKEN[policy][:1]) in label) == bool(BROKEN[policy])


def luminance(colour: str) -> float:
    """Of #rrggbb: the relative luminance of WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("scheme", "style"), [(0, STYLE), (1, DARK)])
def test_every_colour_is_readable(scheme: int, style: str) -> None:
    named = dict(re.findall(r"--(\w+):(#\w+)", style))
    full = {k: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:]) for k, v in named.items()}
    for colour in (full["ink"], full["bad"], *(pair[scheme] for pair in COLOURS)):
        light, dark = sorted((luminance(full["paper"]), luminance(colour)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour
