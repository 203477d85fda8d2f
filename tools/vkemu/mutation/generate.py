"""Mutants by machine, and what becomes of each: a sample, in several processes, taken up again
where it was left."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from vkemu.mutation.operators import Edit, applied, changes, edits
from vkemu.mutation.planted import ROOT, sources
from vkemu.mutation.reach import Reach, reach, reaching
from vkemu.mutation.reviewed import EQUIVALENT
from vkemu.record.token import model_digest

SECONDS: Final = 60.0  # for all the checks of a mutant; one that takes longer hangs


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
        return f"{self.path} {self.edit.what}: " + " ".join(
            line[0] + line[1:].strip() for line in changed
        )


class Fate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of it: noticed, survived, unreached, or equivalent."""

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


def reach_of(jobs: int) -> list[Reach]:
    """Of the kernels as they are: from `runs/`, when it was looked at before."""
    kept = Path("runs") / f"reach-{model_digest().hex()}.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=list[Reach])
    reached, _ = reach(jobs=jobs)
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(msgspec.json.encode(reached))
    return reached


def questions(chosen: list[Generated], reached: list[Reach]) -> list[tuple[Generated, list[str]]]:
    """What `fate` is asked: each with the checks that reach it."""
    return [
        (m, [] if m.key in EQUIVALENT else reaching(reached, m.path, m.edit.first, m.edit.last))
        for m in chosen
    ]


def fate(mutant: Generated, wanted: list[str]) -> Fate:
    """What becomes of it under the checks that are `wanted`."""
    if mutant.key in EQUIVALENT:
        return Fate(mutant.name, "equivalent", said=EQUIVALENT[mutant.key])
    if not wanted:
        return Fate(mutant.name, "unreached", diff=mutant.diff())
    asked = {"path": str(ROOT / mutant.path), "text": mutant.text(), "checks": wanted}
    command = [sys.executable, "-m", "vkemu.mutation.planted"]
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(asked),
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Fate(mutant.name, "survived", said=f"no end in {SECONDS:g} s", diff=mutant.diff())
    if done.returncode:
        last_line = done.stderr.decode().strip().splitlines()[-1:]
        return Fate(mutant.name, "noticed", "import", " ".join(last_line))
    told = msgspec.json.decode(done.stdout, type=dict[str, str])
    diff = mutant.diff() if told["status"] == "survived" else ""
    return Fate(mutant.name, told["status"], told.get("by", ""), told.get("said", ""), diff)
