"""Mutants by machine, and what becomes of each: a sample, in several processes, taken up again
where it was left."""

from __future__ import annotations

import difflib
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from vkemu.mutation.operators import Edit, applied, changes, edits
from vkemu.mutation.planted import ROOT, Told, notices, sources
from vkemu.mutation.reach import USUAL, Asked, Looked, Reach, nearby, others, reaching, shares
from vkemu.mutation.reasons import enclosing
from vkemu.mutation.reviewed import EQUIVALENT
from vkemu.record.token import model_digest

IMPORT: Final = "import"


class Generated(msgspec.Struct, frozen=True):
    """A mutant: an edit of a file below the root."""

    path: str
    edit: Edit

    @property
    def name(self) -> str:
        """vkhost/vm/vm_fault.py:120 left out"""
        return f"{self.path}:{self.edit.first} {self.edit.what}"

    def text(self) -> str:
        return applied((ROOT / self.path).read_text(), self.edit)

    def diff(self) -> str:
        old = (ROOT / self.path).read_text().splitlines()
        new = self.text().splitlines()
        context = 2  # lines of the diff around a mistake
        found = difflib.unified_diff(old, new, self.path, self.path, lineterm="", n=context)
        return "\n".join(found)

    @property
    def key(self) -> str:
        """The same for the same mistake, wherever its file has moved it."""
        changed = (line for line in self.diff().splitlines()[2:] if line[:1] in "+-")
        function = next(iter(enclosing((ROOT / self.path).read_text(), self.edit.first)), "")
        return f"{self.path}:{function} {self.edit.what}: " + " ".join(
            line[0] + line[1:].strip() for line in changed
        )


class Fate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of it: noticed, survived, unreached, equivalent; `tests`: by them alone."""

    name: str
    status: str
    by: str = ""
    said: str = ""
    diff: str = ""


def sample(count: int, seed: int) -> list[Generated]:
    """`count` of all there are, the same for the same kernels."""
    every = [
        Generated(str(path.relative_to(ROOT)), edit)
        for path in sources()
        for edit in edits(path.read_text())
    ]
    Random(seed).shuffle(every)
    chosen: list[Generated] = []
    for mutant in every:
        if len(chosen) == count:
            break
        if changes((ROOT / mutant.path).read_text(), mutant.edit):
            chosen.append(mutant)
    return chosen


def reach_of(ask: Callable[[list[tuple[list[str]]]], Iterable[Looked]]) -> list[Reach]:
    """Of the kernels and the checks as they are: from `runs/`, when it was looked at before. `ask`
    has `look` answered for every share."""
    wanted = shares(USUAL, others())
    digest = sha256(model_digest() + repr(wanted).encode()).hexdigest()[:12]
    kept = Path("runs") / f"reach-{digest}.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=list[Reach])
    reached = [reach for looked in ask(wanted) for reach in looked.reached]
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(msgspec.json.encode(reached))
    return reached


def questions(
    chosen: list[Generated], reached: list[Reach], seconds: float, tests: str
) -> list[tuple[Generated, list[Asked], float, str, bool]]:
    """What `fate` is asked: each with the checks that reach it, or that come near."""
    found = []
    for m in chosen:
        known = m.key in EQUIVALENT
        wanted = [] if known else reaching(reached, m.path, m.edit.first, m.edit.last)
        near = [] if known or wanted else nearby(reached, m.path, m.edit.first)
        found.append((m, wanted or near, seconds, tests, bool(wanted)))
    return found


def fate(
    mutant: Generated, wanted: list[Asked], seconds: float, tests: str, known: bool = True
) -> Fate:
    """What becomes of it under the checks that are `wanted`, in so many seconds of CPU; if nothing
    is said, under the unit tests below `tests`. `known`: they reach it."""
    if mutant.key in EQUIVALENT:
        return Fate(mutant.name, "equivalent", said=EQUIVALENT[mutant.key])
    found = _asked(mutant, wanted, seconds)
    if found.status == "survived" and not known:
        found = msgspec.structs.replace(found, status="unreached")
    if found.status != "noticed" and tests:
        folders = [f"{tests}/{mutant.path.partition('/')[0]}", f"{tests}/x86"]
        told = _planted(mutant, tests=folders)
        if told.status == "noticed":
            return Fate(mutant.name, "tests", told.by, told.said, found.diff)
    return found


def _asked(mutant: Generated, wanted: Sequence[Asked], seconds: float) -> Fate:
    left = list(wanted)
    while True:
        told = _planted(mutant, checks=left, seconds=seconds)
        if told.status == "survived":
            return Fate(mutant.name, "survived", said=told.said, diff=mutant.diff())
        if told.by == IMPORT or not control(*left[told.number]):
            return Fate(mutant.name, "noticed", told.by, told.said)
        del left[: told.number + 1]  # it says so of the kernels as they are


@cache
def control(check: str, executions: int) -> bool:
    """Does it say anything of the kernels as they are?"""
    return bool(notices(check, executions))


def _planted(
    mutant: Generated, checks: Sequence[Asked] = (), seconds: float = 0.0, tests: Sequence[str] = ()
) -> Told:
    """In a process of its own."""
    asked = {"path": str(ROOT / mutant.path), "text": mutant.text(), "tests": tests}
    ran = subprocess.run(
        [sys.executable, "-m", "vkemu.mutation.planted"],
        input=msgspec.json.encode(asked | {"checks": checks, "seconds": seconds}),
        capture_output=True,
        check=False,
    )
    if ran.returncode:
        return Told("noticed", IMPORT, " ".join(ran.stderr.decode().strip().splitlines()[-1:]))
    return msgspec.json.decode(ran.stdout, type=Told)
