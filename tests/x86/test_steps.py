"""What a step of machine code may hold: of random programs, whatever the setting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.x86.test_machine_code import DATA, MORE, PAGE, Guest

# Each accesses at most one word, of the page that rbx or rsi points to.
INSNS = {
    "mov rax, [rbx]": "488b03",
    "mov [rbx], rcx": "48890b",
    "mov [rbx+3], cl": "884b03",
    "add [rbx], rcx": "48010b",
    "lock add [rbx], rcx": "f048010b",
    "xchg [rsi], rcx": "48870e",
    "mov rdx, [rsi]": "488b16",
    "mov [rsi+8], rdx": "48895608",
    "inc rax": "48ffc0",
    "add rcx, rax": "4801c1",
    "nop": "90",
    "lea rdx, [rcx+1]": "488d5101",
}
PROGRAM = st.lists(st.sampled_from([*INSNS.values()]), max_size=24)


class Watched(Guest):
    """Where a step begins is among the events."""

    def __init__(self, code: str, **options: Any) -> None:
        super().__init__(code, **options)
        step = self.ex.step

        def marked(tid: int) -> bool:
            self.events.append(("step",))
            return step(tid)

        self.ex.step = marked  # type: ignore[method-assign]

    def accesses(self) -> Iterator[list[tuple[str, int]]]:
        """(load or store, address) of data, by step."""
        for is_step, events in groupby(self.events, lambda event: event == ("step",)):
            if not is_step:
                accesses = [e for e in events if e[0] in ("mem.load", "mem.store")]
                yield [(e[0], e[3]) for e in accesses if e[3] // PAGE in (DATA, MORE)]


def ran(code: list[str], **options: Any) -> tuple[Watched, list[int]]:
    k = Watched("".join(code) + "0f05", **options)
    frame, _ = k.run_user(rbx=DATA * PAGE, rsi=MORE * PAGE, rcx=3)
    words = [k.word(12, 0), k.word(13, 0), k.word(13, 1)]
    return k, [*frame.regs, frame.budget, *words]


@settings(max_examples=20, deadline=None)
@given(PROGRAM, st.integers(1, 100))
def test_accesses_are_merged_only_where_the_setting_says_so(code: list[str], insns: int) -> None:
    k, ends = ran(code, user_insns=insns)
    for made in k.accesses():
        assert len(made) == len({name for name, _ in made}) <= 2
        assert len({va for _, va in made}) <= 1

    merged, ends_too = ran(code, user_insns=insns, merge_accesses=True)
    told = sum(event[3] for event in merged.named("user.insns"))
    assert ends_too == ends
    assert told == len(code) + 1  # with the system call: nothing was executed that is not said


@settings(max_examples=8, deadline=None)
@given(PROGRAM)
def test_a_program_ends_the_same_whatever_a_step_holds(code: list[str]) -> None:
    assert ran(code)[1] == ran(code, user_insns=7)[1] == ran(code, user_insns=1000)[1]


def test_each_access_and_each_instruction_is_told() -> None:
    """Whoever judges what programs see has nothing else."""
    code = [INSNS["mov rax, [rbx]"], INSNS["mov [rbx], rcx"], INSNS["nop"]]
    k, _ = ran(code)

    told = [made for made in k.accesses() if made]
    assert told == [[("mem.load", DATA * PAGE)], [("mem.store", DATA * PAGE)]]
    assert sum(event[3] for event in k.named("user.insns")) == len(code) + 1


def test_what_goes_round_for_ever_ends_with_its_quantum() -> None:
    for options in ({}, {"user_insns": 100}, {"user_insns": 100, "merge_accesses": True}):
        k = Watched("ebfe", **options)  # jmp to itself
        reply = k.enter_user(budget=50)
        assert reply.frame is not None
        assert reply.frame.budget == 0
