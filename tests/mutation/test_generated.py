"""Generated mutants: the operators, that a mistake is planted, and a recorded sample."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from vkemu.mutation import generate
from vkemu.mutation.generate import Generated, fate, sample
from vkemu.mutation.operators import applied, changes, edits
from vkemu.mutation.planted import ROOT, Told, sources
from vkemu.mutation.reach import EARLY, Asked, Looked, Reach, look, nearby, reaching, shares
from vkemu.mutation.reviewed import EQUIVALENT

SEEDS = 60
RECORDED = Path(__file__).parent / "recorded.json"
SOURCE = """\
async def f(m, pages: A | B) -> A | B:
    await lock(m)
    await free(m)
    if m.valid and not m.dirty:
        m.flags = PG_MAPPED | PG_BUSY
    while await busy(m):
        await wait(m)
    for page in pages:
        await g(page + 1)
    if "x" in kernel.mutants:
        m.flags = PG_BUSY
    if (m.valid or m.dirty) and m.busy:
        return True
    kkassert(m.kernel, m.count == 1)
    if TYPE_CHECKING:
        Answer = int | None
    emit("page.free", m)
    return m.count < 5


def __init__(self):
    self.x = 1
"""
WANTED = {
    "left out": "    pass\n    await free(m)\n",
    "swapped": "    await free(m)\n    await lock(m)\n",
    "condition inverted": "    if not (m.valid and not m.dirty):\n",
    "condition dropped": "    if ((m.valid or m.dirty)):\n",
    "flag forgotten": "        m.flags = PG_BUSY\n",
    "retry not taken": "    if await busy(m):\n",
    "first only": "        await g(page + 1)\n        break\n",
    "one too few": "        await g(page)\n",
    "answer inverted": "        return False\n",
    "bound off by one": "    return m.count <= 5\n",
}


@pytest.mark.parametrize("what", WANTED)
def test_an_operator(what: str) -> None:
    texts = [applied(SOURCE, edit) for edit in edits(SOURCE) if edit.what == what]

    assert any(WANTED[what] in text for text in texts), texts


def test_what_is_no_mistake_of_a_kernel() -> None:
    """Types, what builds an object, what is said, and what asks for a deliberate defect."""
    lines = SOURCE.splitlines()
    touched = {lines[edit.first - 1].strip() for edit in edits(SOURCE)}

    assert "async def f(m, pages: A | B) -> A | B:" not in touched
    assert "self.x = 1" not in touched
    assert 'emit("page.free", m)' not in touched
    assert "kkassert(m.kernel, m.count == 1)" not in touched
    assert "m.flags = PG_BUSY" not in touched
    assert 'if "x" in kernel.mutants:' not in touched
    assert "if TYPE_CHECKING:" not in touched
    assert "Answer = int | None" not in touched
    assert all(changes(SOURCE, edit) for edit in edits(SOURCE))


def test_a_seed_is_a_sample() -> None:
    one, same, other = sample(5, 1), sample(5, 1), sample(5, 2)

    assert one == same
    assert one != other
    assert sample(3, 1) == one[:3]


def test_the_checks_of_a_line_come_cheap_ones_first() -> None:
    def of(check: str, seconds: float, verdict: str = "pass", line: int = 7) -> Reach:
        return Reach(check, verdict, seconds, {"vkhost/a.py": [line]})

    reached = [
        of("litmus W01 pv_entry", 2.0),
        of("litmus W02 pv_entry", 1.0),
        of("litmus W03 pv_entry", 1.0, "fail"),
        of("litmus W04 pv_entry", 1.0, line=8),
        of("litmus W02 bloom", 3.0),
        of("litmus W02 shadow", 4.0),
        of("run wild pv_entry 0", 0.1),
        of("run wild bloom 0", 0.1),
        of("run wild shadow 0", 0.1),
    ]
    found = reaching(reached, "vkhost/a.py", 7, 7)
    checks = [asked.check for asked in found]
    searches = ["litmus W02 pv_entry", "litmus W01 pv_entry", "litmus W02 bloom"]

    # By turns, as long as each other: ten runs of 0.1 s beside a search of 1 s.
    assert checks[:3] == ["litmus W02 pv_entry", "run wild pv_entry 0", "run wild bloom 0"]
    assert checks.index("litmus W01 pv_entry") in (10, 11, 12)
    assert [check for check in checks if check.startswith("litmus")] == searches * 2
    assert not any("shadow" in check or "W03" in check or "W04" in check for check in checks)
    assert found[-1].executions > found[-4].executions


def test_a_reverse_map_is_tried_with_its_own_policy() -> None:
    path = "vkhost/rmap/shadow.py"
    reached = [
        Reach(f"{check} {policy}", "pass", seconds, {path: [7]})
        for check in ("litmus W01", "litmus W02")
        for policy, seconds in (("bloom", 1.0), ("hybrid", 2.0), ("shadow", 3.0))
    ]

    asked = [check.check for check in reaching(reached, path, 7, 7)]

    own = ["litmus W01 bloom", "litmus W02 bloom", "litmus W01 shadow", "litmus W02 shadow"]
    assert asked == own * 2


def test_a_line_that_nothing_reaches_is_tried_with_what_comes_near() -> None:
    path = "vkhost/vm/vm_fault_page.py"
    lines = (ROOT / path).read_text().splitlines()

    def at(text: str) -> int:
        return next(n for n, line in enumerate(lines, 1) if text in line)

    def of(check: str, text: str) -> Reach:
        return Reach(check, "pass", 1.0, {path: [at(text)]})

    inside, elsewhere = (
        of("litmus W01 pv_entry", "await _finish("),
        of("litmus W02 pv_entry", "_try("),
    )

    def near(text: str) -> set[str]:
        checks = {asked.check for asked in nearby([inside, elsewhere], path, at(text))}
        return {check for check in checks if check.startswith("litmus")}

    assert near("fs.first_shared = False") == {inside.check, elsewhere.check}, "its function"
    assert near("import annotations") == {inside.check, elsewhere.check}, "its file"
    assert {asked.check for asked in nearby([], path, 1)} == {asked.check for asked in EARLY}


@pytest.mark.parametrize("key", EQUIVALENT)
def test_what_was_reviewed_can_still_be_made(key: str) -> None:
    path, _, rest = key.partition(":")
    what = rest.partition(" ")[2].partition(":")[0]
    made = (e for e in edits((ROOT / path).read_text()) if e.what == what)

    assert key in {Generated(path, edit).key for edit in made}


def planted(path: str, text: str, checks: list[str], **more: object) -> Told:
    asked = {"path": str(ROOT / path), "text": text, "checks": [(c, 300) for c in checks]}
    ran = subprocess.run(
        [sys.executable, "-m", "vkemu.mutation.planted"],
        input=json.dumps({"tests": "", "seconds": 60, **asked, **more}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return msgspec.json.decode(ran.stdout, type=Told)


WIRE = "vkhost/vm/vm_page_wire.py"


def test_without_a_mistake_nothing_is_noticed() -> None:
    said = planted(WIRE, (ROOT / WIRE).read_text(), ["run wild pv_entry 0"])

    assert said == Told("survived", said="1 checks")


def test_what_goes_round_for_ever_is_noticed() -> None:
    text = (ROOT / WIRE).read_text() + "\n\nwhile True:\n    pass\n"

    said = planted(WIRE, text, ["run wild pv_entry 0"], check_seconds=1)

    assert said == Told("noticed", "run wild pv_entry 0", "no end in 1 s")


def test_the_time_of_all_checks_is_over() -> None:
    text = (ROOT / WIRE).read_text()

    said = planted(WIRE, text, ["run wild pv_entry 0"], seconds=0)

    assert said.said == "0 of 1 checks in 0 s"


def test_a_check_that_says_so_anyway_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """W06 fails on extent_scan, with a mistake and without."""
    blind, run = Asked("litmus W06 extent_scan", 60), Asked("run wild pv_entry 0", 1)
    answers = iter([Told("noticed", blind.check, "lost"), Told("survived", said="1 checks")])
    asked: list[Sequence[Asked]] = []

    def told(mutant: Generated, checks: Sequence[Asked], seconds: float) -> Told:
        asked.append(list(checks))
        return next(answers)

    monkeypatch.setattr(generate, "_planted", told)

    assert fate(sample(1, 1)[0], [blind, run], 60, "").status == "survived"
    assert asked == [[blind, run], [run]]


def recorded() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(RECORDED.read_text())
    return found


def test_every_recorded_mistake_can_still_be_made() -> None:
    known = {str(path.relative_to(ROOT)) for path in sources()}
    for one in recorded():
        assert one["path"] in known
        assert (ROOT / one["path"]).read_text().count(one["old"]) == 1, one


def cases() -> Iterator[object]:
    for one in recorded():
        marks = getattr(pytest.mark, one.get("when", "slow"))
        yield pytest.param(one, marks=marks, id=f"{one['path']} {one['what']}")


@pytest.mark.parametrize("one", list(cases()))
def test_a_recorded_mistake_is_noticed(one: dict[str, str]) -> None:
    """A sample of generated mutants (seeds 2027, 2028), each with the check that noticed it; of a
    scenario, some seed does, and which one is anybody's guess after a change of the kernels."""
    if "x86" in one["by"]:
        pytest.importorskip("unicorn", reason="needs the extra x86")
    text = (ROOT / one["path"]).read_text().replace(one["old"], one["new"])
    many = one["by"].startswith("run")
    checks = [f"{one['by']} {seed}" for seed in range(SEEDS)] if many else [one["by"]]

    said = planted(one["path"], text, checks)

    assert said.status == "noticed", said


def test_every_check_is_in_one_share_and_what_it_reaches_can_be_sent() -> None:
    asked = [check for (share,) in shares(("pv_entry",), also=["litmus W01-late-enter nested"])
             for check in share]  # fmt: skip
    assert len(asked) == len(set(asked))
    assert asked[-1] == "litmus W01-late-enter nested"

    looked = look(asked[-1:])
    assert msgspec.json.decode(msgspec.json.encode(looked), type=Looked) == looked
    (reach,) = looked.reached
    assert reach.lines["vkhost/pc64/nested_walk.py"]
