"""A search is taken up again by the program it was saved from, and by no other."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from random import Random
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest
from vkemu import explore
from vkemu.commands.python_program import PythonProgram
from vkemu.commands.subject import ScenarioProgram
from vkemu.exploration import ExplorationError
from vkemu.exploration.sharing.checkpoint import beginning_of
from vkemu.exploration.sharing.identity import identity_of
from vkemu.launch.scenario import load

SOURCE = """
LIMIT = 2

def predicate(x):
    return x.value <= LIMIT

def program(k, least=0):
    x = k.cell("x", 0)
    async def increment():
        v = await x.load()
        await x.store(v + 1)
    k.spawn("a", increment)
    k.spawn("b", increment)
    k.at_end(lambda: x.value >= least and predicate(x))
"""
EDITS = {
    "in a thread": ("v + 1", "v + 2"),
    "in a predicate": ("x.value >= least", "x.value > least"),
    "in what it calls": ("x.value <= LIMIT", "x.value < LIMIT"),
    "of a constant of the module": ("LIMIT = 2", "LIMIT = 1"),
    "of a default": ("least=0", "least=1"),
    "of a name": ("await x.load()", "await x.swap()"),
}


def compiled(source: str) -> FunctionType:
    module: dict[str, Any] = {"__name__": "p"}
    exec(source, module)
    found = module["program"]
    assert isinstance(found, FunctionType)
    return found


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_program_is_another_one(edit: str) -> None:
    edited = SOURCE.replace(*EDITS[edit])
    assert edited != SOURCE
    assert identity_of(compiled(edited)) != identity_of(compiled(SOURCE))


def bound(program: Any, least: int) -> Any:
    return lambda k: program(k, least)


@pytest.mark.parametrize("least", [partial, bound])
def test_other_arguments_make_another_program(least: Any) -> None:
    program = compiled(SOURCE)
    identities = [identity_of(least(program, least=n)) for n in (1, 2, 1)]
    assert identities[0] == identities[2] != identities[1]


def test_where_it_stands_does_not_matter() -> None:
    moved = compiled("\n\n# moved\n" + SOURCE)
    assert identity_of(moved) == identity_of(compiled(SOURCE))


class Limits:
    kept = 1

    def __init__(self, value: Any) -> None:
        self.value = value

    def allow(self, x: Any) -> bool:
        return bool(x.value != self.value)


LIMITS: dict[str, Any] = {}


def limited(k: Any, limits: Any = None, values: Any = ()) -> None:
    x = k.cell("x", 0)
    for value in values:
        k.spawn(f"store {value}", x.store, value)
    k.spawn("one", x.store, 1)
    k.at_end(lambda: limits is None or limits.allow(x))
    k.at_end(lambda: x.value != LIMITS.get("x") and x.value != Limits.kept - 1)


def test_all_it_refers_to_is_part_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [
        limited, partial(limited, values=[1, 2]), partial(limited, values=[9, 9]),
        partial(limited, limits=Limits(1)), partial(limited, limits=Limits(2)),
        partial(limited, values={9, 4, "x"}), partial(limited, values=({1: 2},)),
    ]  # fmt: skip
    known = [identity_of(program) for program in programs]
    monkeypatch.setitem(LIMITS, "x", 1)
    known.append(identity_of(limited))
    monkeypatch.setattr(Limits, "kept", 2)
    known.append(identity_of(limited))
    monkeypatch.setattr(Limits, "allow", lambda self, x: False)
    known.append(identity_of(programs[3]))
    assert len(set(known)) == len(known)
    assert identity_of(partial(limited, values=[1, 2])) == identity_of(
        partial(limited, values=[1, 2])
    )


def test_a_checkpoint_is_not_taken_up_with_other_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "search"
    assert explore(limited, checkpoint=file).verdict == "pass"
    monkeypatch.setitem(LIMITS, "x", 1)
    with pytest.raises(ExplorationError, match="the program is another one"):
        explore(limited, checkpoint=file)


def by_name(k: Any, limits: Any, name: str) -> None:
    x = k.cell("x", 0)
    k.spawn("one", x.store, 1)
    k.at_end(lambda: x.value != getattr(limits, name + "ue"))


def by_pattern(k: Any, limits: Any) -> None:
    match limits:
        case Limits(value=2):
            k.at_end(lambda: False)


def by_format(k: Any, limits: Any) -> None:
    k.at_end(lambda: "{.value}".format(limits) == "1")  # noqa: UP032


@pytest.mark.parametrize("program", [partial(by_name, name="val"), by_pattern, by_format])
def test_whatever_names_a_field_it_is_part_of_a_program(program: Any) -> None:
    identities = [identity_of(partial(program, limits=Limits(n))) for n in (1, 2, 1)]
    assert identities[0] == identities[2] != identities[1]


def test_a_module_without_a_file_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = ModuleType("made_by_a_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)

    def program(k: Any) -> None:
        k.at_end(lambda: made.limit)

    identities = []
    for made.limit in (1, 2, 1):
        identities.append(identity_of(program))
    assert identities[0] == identities[2] != identities[1]


def test_a_program_that_asks_its_process_has_no_checkpoint(tmp_path: Path) -> None:
    def program(k: Any) -> None:
        k.at_end(lambda: os.environ.get("LIMIT") is None)

    with pytest.raises(ExplorationError, match=r"^checkpoint: .* refers to environ, .*identity"):
        explore(program, checkpoint=tmp_path / "search")


def test_a_program_without_a_value_has_no_checkpoint(tmp_path: Path) -> None:
    program = partial(limited, limits=Random(1))
    with pytest.raises(ExplorationError, match=r"^checkpoint: .* refers to limits, .*identity"):
        explore(program, checkpoint=tmp_path / "search")


def test_a_checkpoint_of_an_edited_program_is_refused(tmp_path: Path) -> None:
    """It begins the same way; and the saved search had no failure to tell."""
    file = tmp_path / "search"
    weak = SOURCE.replace("x.value >= least and predicate(x)", "True")
    assert explore(compiled(weak), checkpoint=file, max_executions=3).verdict == "unknown"
    with pytest.raises(ExplorationError, match="the program is another one"):
        explore(partial(compiled(SOURCE), least=2), checkpoint=file)
    assert explore(compiled(weak), checkpoint=file).verdict == "pass"


def test_a_python_file_is_known_by_its_source(tmp_path: Path) -> None:
    file = tmp_path / "p.py"
    beginnings = []
    for source in (SOURCE, SOURCE.replace("least=0", "least=2"), SOURCE):
        file.write_text(source)
        beginnings.append(beginning_of(PythonProgram(str(file), "program")))
    assert beginnings[0] == beginnings[2] != beginnings[1]


def test_a_scenario_is_known_by_all_that_it_says() -> None:
    scenario = load("oom-innocent")
    host = msgspec.structs.replace(scenario.host, interlock=False)
    others = [
        scenario,
        msgspec.structs.replace(scenario, policy="shadow"),
        msgspec.structs.replace(scenario, host=host),
    ]
    assert len({beginning_of(ScenarioProgram(other)) for other in others}) == 3
    said = msgspec.structs.replace(scenario, about="in other words")
    assert beginning_of(ScenarioProgram(said)) == beginning_of(ScenarioProgram(scenario))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "search"
    explore(compiled(SOURCE), checkpoint=file)
    with pytest.raises(ExplorationError, match=f"^checkpoint {file}: made with strategy='dpor'$"):
        explore(compiled(SOURCE), strategy="dfs", checkpoint=file)
    file.write_bytes(file.read_bytes()[:50])
    said = f"^checkpoint {file}: cannot be read: no checkpoint, or damaged: "
    with pytest.raises(ExplorationError, match=said):
        explore(compiled(SOURCE), checkpoint=file)


def test_a_checkpoint_that_was_changed_is_refused(tmp_path: Path) -> None:
    """Wherever: a count that is another would be told as the search's."""
    file = tmp_path / "search"
    explore(compiled(SOURCE), checkpoint=file, max_executions=3)
    content = file.read_bytes()
    for at in range(0, len(content), 17):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ExplorationError, match=f"^checkpoint {file}: cannot be read: "):
            explore(compiled(SOURCE), checkpoint=file)


def test_a_checkpoint_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "none" / "search"
    with pytest.raises(ExplorationError, match=f"^checkpoint {file}: cannot be written: no folder"):
        explore(compiled(SOURCE), checkpoint=file)


@pytest.mark.parametrize("strategy", ["random", "pct:2", "pos", "urw", "bounded", "portfolio"])
def test_a_checkpoint_of_a_search_that_cannot_be_saved_is_refused(
    tmp_path: Path, strategy: str
) -> None:
    with pytest.raises(ExplorationError, match=f"^checkpoint: {strategy} .*expected dfs or dpor$"):
        explore(compiled(SOURCE), strategy=strategy, checkpoint=tmp_path / "search")
    assert not (tmp_path / "search").exists()
