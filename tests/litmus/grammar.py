"""Litmus files drawn from the grammar of the code's own tables, right ones and wrong ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from vkemu.litmus.actor import VERBS, Entry
from vkemu.litmus.operand import Operand
from vkprotocol.limits import U64

Document = dict[str, Any]
KINDS = ("user", "guest", "fault", "pageout", "host")
LONG = 0x3FFFFFFFFFFFFFFFFFFFFF  # 22 hex digits
NAMES = ("nope", "-", "a b", "V|X", "9" * 50)

# By what an operand is written as: words that are one, and words that are none.
RIGHT: dict[str, tuple[object, ...]] = {
    "VA": ("a", "b", 0x400000),
    "PAGE": ("X", "Y", 8),
    "BITS": ("V|RW|U|A|M", "M", "RW|M"),
    "WORD": (0, 7, U64),
    "LEVEL": (0, 9),
    "CPU": (0,),
    "INDEX": (0, 1, 511),
    "PAGES": (1, 2),
    "EVENT": (1,),
    "LOCK": (0,),
    "PASSES": (0, 1),
    "LIMIT": (0, 1),
    "ID": (1, 2),
    "BUDGET": (1, 8),
}
WRONG: dict[str, tuple[object, ...]] = {
    "VA": ("nope", "X", -4096, 0x400001, 1 << 47, LONG),
    "PAGE": ("nope", "a", -1, 1 << 41, LONG),
    "BITS": ("X", 7, "V|", "PAGE_MASK", "V|RW|FRAME"),
    "WORD": (-5, 1 << 64, 0x1FFFFFFFFFFFFFFFF, "nope", LONG),
    "LEVEL": (1, 36, -9, "V"),
    "CPU": (-1, 9, 63, "a"),
    "INDEX": (-1, 512, 99999, "a"),
    "PAGES": (-1, 1 << 36, "a"),
    "EVENT": (-1, 64, LONG, "a"),
    "LOCK": (-1, 64, "a"),
    "PASSES": (-1, 10**6, "a"),
    "LIMIT": (-1, 1 << 40, "a"),
    "ID": (-1, 1 << 64, "a"),
    "BUDGET": (0, -1, 1 << 21, "a"),
}


def document(threads: list[Document]) -> Document:
    """Two pages, two addresses that are mapped, and these threads."""
    return {
        "litmus": {"name": "drawn"},
        "host": {"cpus": 4},
        "page": {"X": {"words": [1, 2], "dmap": "rw"}, "Y": {"words": [3]}},
        "va": {
            "a": {"va": 0x400000, "page": "X", "mapped": "rw", "tlb": [0]},
            "b": {"va": 0x401000, "page": "Y"},
        },
        "thread": threads,
    }


def words_of(operand: Operand, table: dict[str, tuple[object, ...]]) -> tuple[object, ...]:
    if "|" in operand.form:  # one of a few words
        words = tuple(operand.form.split("|"))
        return words if table is RIGHT else ("nope", 0, words[0] + words[-1])
    return table[operand.form]


@st.composite
def statements(draw: st.DrawFn, kind: str) -> str:
    name = draw(st.sampled_from(sorted(n for n, e in VERBS.items() if kind in e.kinds)))
    entry = VERBS[name]
    given = draw(st.integers(len(entry.operands) - len(entry.defaults), len(entry.operands)))
    words = [
        str(draw(st.sampled_from(words_of(operand, RIGHT))))
        for operand in list(entry.operands.values())[:given]
    ]
    target = draw(st.sampled_from(("", "", "r0 = ", "r1 = ")))
    return f"{target}{' '.join((name, *words))}"


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A file that names only what there is. CPU 0 runs the guest's process, the others vary."""
    kinds = ["user", *draw(st.lists(st.sampled_from(KINDS[1:]), min_size=1, max_size=2))]
    threads = [
        {
            "name": f"T{i}",
            "kind": kind,
            "cpu": i,
            "run": draw(st.lists(statements(kind), min_size=1, max_size=4)),
        }
        for i, kind in enumerate(kinds)
    ]
    threads.append({"name": "P", "kind": "host", "cpu": 3, "run": ["post 1", "fork"]})
    return document(threads)


def _operands(entry: Entry) -> list[Operand]:
    return list(entry.operands.values())


@st.composite
def wrong_statements(draw: st.DrawFn) -> tuple[Document, str]:
    """A file with one operand wrong, and where it is."""
    name = draw(st.sampled_from(sorted(n for n, e in VERBS.items() if e.operands)))
    entry = VERBS[name]
    at = draw(st.integers(0, len(entry.operands) - 1))
    words: list[object] = [words_of(o, RIGHT)[0] for o in _operands(entry)]
    words[at] = draw(st.sampled_from(words_of(_operands(entry)[at], WRONG)))
    return one_line(entry, " ".join(map(str, (name, *words)))), "thread[0].run[0]"


@st.composite
def wrong_counts(draw: st.DrawFn) -> tuple[Document, str]:
    name = draw(st.sampled_from(sorted(VERBS)))
    entry = VERBS[name]
    words: list[object] = [words_of(o, RIGHT)[0] for o in _operands(entry)]
    if words and not entry.defaults and draw(st.booleans()):
        words.pop()
    else:
        words += [7] * draw(st.integers(1, 3))
    return one_line(entry, " ".join(map(str, (name, *words)))), "thread[0].run[0]"


def one_line(entry: Entry, line: str) -> Document:
    others = ["post 1"] if line.startswith("fork") else ["post 1", "fork"]
    return document(
        [
            {"name": "T", "kind": entry.kinds[0], "cpu": 1, "run": [line]},
            {"name": "P", "kind": "host", "cpu": 3, "run": others},
        ]
    )


def put(path: str, value: object) -> Callable[[Document], None]:
    def change(found: Document) -> None:
        *tables, key = path.split(".")
        table: Any = found
        for part in tables:
            table = table[int(part)] if part.isdigit() else table.setdefault(part, {})
        table[key] = value

    return change


# What is put where -> the place that is named.
WRONG_KEYS: tuple[tuple[str, object, str], ...] = (
    ("litmus.name", "a b", "litmus.name"),
    ("litmus.spare", 100_000_000_000, "litmus.spare"),
    ("litmus.spare", -1, "litmus.spare"),
    ("litmus.checks", ["nope"], "litmus.checks[0]"),
    ("litmus.policies", ["nope"], "litmus.policies[0]"),
    ("litmus.reason", "why", "litmus.reason"),
    ("litmus.na", {"nope": "why"}, "litmus.na"),
    ("litmus.na_where", {"nope": "didcow_or"}, "litmus.na_where"),
    ("litmus.tunables", {"nope": 1}, "litmus.tunables"),
    ("litmus.tunables", {"prefault_pages": -1}, "litmus.tunables.prefault_pages"),
    ("litmus.max_steps", 0, "litmus.max_steps"),
    ("litmus.nope", 1, "litmus.nope"),
    ("host.cpus", 0, "host.cpus"),
    ("host.cpus", 65, "host.cpus"),
    ("host.pages", 1 << 24, "host.pages"),
    ("host.pages", 2, "host.pages"),
    ("host.free_min", 10**9, "host.free_min"),
    ("host.shootdown", "nope", "host.shootdown"),
    ("quirks.nope", True, "quirks.nope"),
    ("mutants", ["nope"], "mutants[0]"),
    ("page.X.words", [1] * 600, "page.X.words"),
    ("page.X.words", [LONG], "page.X.words[0]"),
    ("page.X.words", [-1], "page.X.words[0]"),
    ("page.X.frame", 5000, "page.X.frame"),
    ("page.X.frame", 2, "page.X.frame"),
    ("page.X.dmap", "w", "page.X.dmap"),
    ("page.X.colour", 1, "page.X.colour"),
    ("page.a b", {}, "page"),
    ("va.a.va", 0x7FFFFFFFF000, "va.a.va"),
    ("va.a.va", 0x400001, "va.a.va"),
    ("va.a.va", 0x401000, "va.b.va"),
    ("va.a.va", -4096, "va.a.va"),
    ("va.a.page", "Z", "va.a.page"),
    ("va.a.page", "", "va.a.mapped"),
    ("va.a.bits", "V|QQ", "va.a.bits"),
    ("va.a.bits", "RW|U", "va.a.bits"),
    ("va.a.bits", "V|U", "va.a.bits"),
    ("va.a.mapped", "q", "va.a.mapped"),
    ("va.a.tlb", [5], "va.a.tlb[0]"),
    ("va.a.tlb", [-1], "va.a.tlb[0]"),
    ("va.a.tlb", [1], "va.a.tlb[0]"),
    ("va.a.written", 1 << 64, "va.a.written"),
    ("va.b.written", 1, "va.b.written"),
    ("va.b.tlb", ["x"], "va.b.tlb[0]"),
    ("va", {f"v{i}": {"va": i << 40} for i in range(4)}, "va"),
    ("thread.0.kind", "gust", "thread[0].kind"),
    ("thread.0.name", "P", "thread[1].name"),
    ("thread.0.name", "a b", "thread[0].name"),
    ("thread.0.cpu", 4, "thread[0].cpu"),
    ("thread.0.run", ["await 2"], "thread[0].run[0]"),
    ("thread.0.run", ["a = vread a"], "thread[0].run[0]"),
    ("thread.0.run", ["if r9 == 1: vread a"], "thread[0].run[0]"),
    ("thread.0.run", ["r0 = nope"], "thread[0].run[0]"),
    ("thread.0.run", ["%"], "thread[0].run[0]"),
    ("thread.0.run", ["child_fault a r"], "thread[0].run[0]"),
    ("thread.0.run", ["respawn"] * 2, "thread[0].run[1]"),
    ("thread.1.run", ["post 1", *["reuse 1"] * 9], "thread[1].run[9]"),
    ("thread.1.kind", "user", "thread[1].cpu"),
    ("outcome.forbidden", "T.r9 == 1", "outcome"),
    ("outcome.forbidden", "X[512] == 1", "outcome"),
    ("outcome.forbidden", "X == 1", "outcome"),
    ("outcome.forbidden", "T.r0 in 3", "outcome.forbidden"),
    ("outcome.forbidden", "T.r0 =", "outcome.forbidden"),
    ("outcome.forbidden", "open(1)", "outcome.forbidden"),
    ("outcome.forbidden", "1 " * 300, "outcome.forbidden"),
    ("outcome.required", 3, "outcome.required"),
    ("va.a.tlb", [0, 0], "va.a.tlb[1]"),
    ("va.c", {"va": 0x402000, "bits": "V|U"}, "va.c.bits"),
    ("mutants", ["lazy-tlb", "lazy-tlb"], "mutants[1]"),
    ("litmus.checks", ["books", "books"], "litmus.checks[1]"),
    ("outcome.forbidden", ["T.r0 == 9", "T.r0 == 9"], "outcome.forbidden[1]"),
    ("page.Y", {"resident": False, "dirty": True}, "page.Y.dirty"),
    ("variant", [{"name": "v"}, {"name": "v"}], "variant[1]"),
    ("before", [{"thread": "Q", "run": []}], "before[0].thread"),
    ("before", [{"thread": "T", "run": ["vread a 7"]}], "before[0].run[0]"),
    ("before", [{"thread": "T", "run": ["vzero a", "await 1"]}], "before[0].run[1]"),
    ("before", [{"thread": "T", "run": ["lock 0"]}], "before[0].run[0]"),
    ("before", [{"thread": "P", "run": ["hold a w"]}], "before[0].run[0]"),
    ("before", [{"thread": "T", "run": ["a = vread a"]}], "before[0].run[0]"),
    ("before", [{"thread": "T", "run": ["peek a"]}], "before[0].run[0]"),
    ("variant", [{"name": "v", "host": {"cpuss": 1}}], "variant.v.host"),
    ("variant", [{"name": "v", "mutants": ["nope"]}], "mutants[0]"),
    ("variant", [{"name": "v", "thread": [{"name": "Q", "kind": "user", "run": []}]}], "variant.v"),
)


def wrong_key(path: str, value: object) -> Document:
    found = copy.deepcopy(
        document(
            [
                {"name": "T", "kind": "guest", "cpu": 1, "run": ["r0 = vread a"]},
                {"name": "P", "kind": "host", "cpu": 0, "run": ["post 1"]},
            ]
        )
    )
    if path == "thread.1.kind":
        found["thread"][1]["cpu"] = 1
    put(path, value)(found)
    return found
