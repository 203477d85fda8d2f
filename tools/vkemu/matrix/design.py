"""One design - a reverse map by name, or one in a file of its own - through everything there is.

Every window with its variants, and a number of seeds of each scenario, in several processes; and
beside it `pv_entry`, which knows every PTE, in the same tree: a window that fails there too is the
guest's own doing, or the host's, and says nothing against the design.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from vkemu.executors.chance import seeded
from vkemu.launch.assemble import assemble
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import Recorder, conduct, headline
from vkemu.launch.scenario import load
from vkemu.matrix.cell import Cell, Question, answer
from vkemu.matrix.compute import questions
from vkemu.verdict import UsageError
from vkhost.rmap import POLICIES, tree_of
from vkhost.rmap.interface import Rmap

EXACT: Final = "pv_entry"
SEEDS: Final = 20
SECONDS: Final = 2.0  # of dpor, before a search is cut short


class Ran(msgspec.Struct, frozen=True, omit_defaults=True):
    """The seeds of a scenario."""

    scenario: str
    passed: int
    unknown: int = 0  # that reached the bound of steps
    failed: int | None = None  # the first seed that failed
    reason: str = ""


class Done(msgspec.Struct, frozen=True):
    """One piece of the work: a cell, or (scenario, seed, verdict, reason), and the lines of the
    design's file that it took."""

    cell: Cell | None
    ran: tuple[str, int, str, str] | None
    lines: list[int]


# (what is done with each piece, the pieces, of what type the answers are): the answers, in order.
Each = Callable[[Callable[..., Done], Sequence[tuple[Any, ...]], type[Done]], Iterator[Done]]


class Design(msgspec.Struct, frozen=True):
    """What became of it. `cells` are those of the design, `exact` those of pv_entry; `unreached`:
    lines of its own file that nothing executed, None if that was not looked at."""

    policy: str
    source: str
    cells: list[Cell]
    exact: list[Cell]
    runs: list[Ran]
    unreached: list[int] | None
    seconds: float


def register(source: str) -> str:
    """The policy's name; of a FILE.py, once its class is known under it. UsageError, when there is
    not exactly one class of a reverse map in the file with a name that nobody has."""
    if not source.endswith(".py"):
        if source not in POLICIES:
            known = ", ".join(sorted(POLICIES))
            raise UsageError(f"check: no policy {source!r}, expected FILE.py or one of {known}")
        return source
    made = [c for c in _classes(_module(source)) if c.__module__ == _module_name(source)]
    if len(made) != 1:
        raise UsageError(f"{source}: {len(made)} subclasses of Rmap, expected one")
    name = made[0].name
    known = POLICIES.get(name, _place(source))
    if not name or not known.startswith(_place(source)):  # or this file as it was
        raise UsageError(f"{source}: {made[0].__name__}.name is {name!r}, expected one of its own")
    POLICIES[name] = _where(source, made[0])
    return name


def _where(source: str, made: type[Rmap]) -> str:
    return f"{_module_name(source)}:{made.__name__}"


def _place(source: str) -> str:
    return f"vkemu_design_{_hash(bytes(Path(source).resolve()))}_"


def _module_name(source: str) -> str:
    return _place(source) + digest_of(source)


def digest_of(source: str) -> str:
    """Of a file; a policy of ours has none."""
    file = Path(source)
    return _hash(file.read_bytes()) if source.endswith(".py") and file.is_file() else ""


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:12]


def _module(source: str) -> Any:
    name = _module_name(source)
    if name in sys.modules:
        return sys.modules[name]
    if not Path(source).is_file():
        raise UsageError(f"{source}: no such file, expected a reverse map in Python")
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = error.lineno if isinstance(error, SyntaxError) else _line_of(error, source)
        raise UsageError(
            f"{source}:{line}: {type(error).__name__}: {error}, expected a module that imports"
        ) from None
    return module


def _line_of(error: Exception, source: str) -> int:
    line, at = 0, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == source:
            line = at.tb_lineno
        at = at.tb_next
    return line


def _classes(module: Any) -> list[type[Rmap]]:
    return [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Rmap)]


def design(source: str, each: Each, *, windows: tuple[str, ...] = (), seeds: int = SEEDS) -> Design:
    """All of it. `each` is who does the work."""
    start = time.monotonic()
    policy = register(source)
    asked = questions(windows, [policy], all_variants=True, max_seconds=SECONDS)
    tree = tree_of(policy)
    beside = questions(windows, [EXACT], all_variants=True, max_seconds=SECONDS, tree=tree)
    beside = [] if policy == EXACT else beside
    digest = digest_of(source)
    work: list[tuple[Any, ...]] = [(source, q, 0, digest) for q in (*asked, *beside)]
    scenarios = ("mixed", "wild", "tight", "natives", "quickstart")
    work += [(source, one, seed, digest) for one in scenarios for seed in range(1, seeds + 1)]
    cells: list[Cell] = []
    said: dict[str, list[tuple[int, str, str]]] = {scenario: [] for scenario in scenarios}
    lines: set[int] = set()
    for done in each(perform, work, Done):
        lines.update(done.lines)
        if done.cell is not None:
            cells.append(done.cell)
        if done.ran is not None:
            scenario, seed, verdict, reason = done.ran
            said[scenario].append((seed, verdict, reason))
    own = [cell for cell in cells if cell.policy == policy]
    return Design(
        policy=policy,
        source=source,
        cells=own,
        exact=[cell for cell in cells if cell.policy == EXACT],
        runs=[_ran(scenario, heard) for scenario, heard in said.items()],
        unreached=_unreached(source, lines),
        seconds=round(time.monotonic() - start, 1),
    )


def _ran(scenario: str, said: list[tuple[int, str, str]]) -> Ran:
    verdicts = [verdict for _, verdict, _ in said]
    failed = next(((seed, why) for seed, verdict, why in said if verdict == "fail"), (None, ""))
    return Ran(scenario, verdicts.count("pass"), verdicts.count("unknown"), *failed)


def perform(source: str, asked: Question | str, seed: int, digest: str) -> Done:
    """In a worker. `digest` is that of the design's file where it was asked for."""
    if digest_of(source) != digest:
        raise UsageError(f"{source}: another file on a worker, expected the same one")
    policy = register(source)
    max_steps = 300_000
    with _Traced(source) as traced:
        if isinstance(asked, Question):
            return Done(answer(asked), None, traced.lines)
        scenario = drawn(load(asked, (f"policy={policy}", f"seed={seed}")), seed)
        machine = assemble(scenario)
        outcome = conduct(machine.execution, Recorder(seeded(seed)), max_steps, machine.finish)
        why = "" if outcome.error is None else headline(outcome.error)
        return Done(None, (asked, seed, outcome.verdict, why), traced.lines)


class _Traced:
    """Notes the lines of a FILE.py while it is entered; of a policy of ours, nothing."""

    def __init__(self, source: str) -> None:
        self.lines: list[int] = []
        self.coverage: Any = None
        if source.endswith(".py"):
            try:
                from coverage import Coverage
            except ImportError:
                return
            self.coverage = Coverage(data_file=None, include=[str(Path(source).resolve())])
            self.coverage.set_option("run:disable_warnings", ["no-data-collected"])

    def __enter__(self) -> _Traced:
        if self.coverage is not None:
            self.coverage.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.coverage is not None:
            self.coverage.stop()
            data = self.coverage.get_data()
            for path in data.measured_files():
                self.lines += data.lines(path) or []


def _unreached(source: str, lines: set[int]) -> list[int] | None:
    if not source.endswith(".py"):
        return None
    try:
        from coverage import Coverage
    except ImportError:
        return None
    _, statements, _, _, _ = Coverage(data_file=None).analysis2(source)
    inside = set(_inside_functions(Path(source).read_text()))
    return [line for line in statements if line in inside and line not in lines]


def _inside_functions(source: str) -> Iterator[int]:
    """What runs when something is called, and not as the file is read."""
    import ast

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for statement in node.body:
                yield from range(statement.lineno, (statement.end_lineno or 0) + 1)
