"""User programs as text: one instruction a line, as `vkprotocol.insn` prints them, with labels.

again:  ld r1, [r2+8]       # a comment
        bne r1, r0, again
        syscall
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vkprotocol import insn as isa
from vkprotocol.insn import Insn, Op

_LABEL = re.compile(r"^([A-Za-z_]\w*)\s*:\s*")
_PLACE = re.compile(r"^\[\s*(r\d+)\s*(?:([+-])\s*(0x[0-9a-fA-F]+|\d+))?\s*\]$")

# Operation -> what its operands are: a register field, a place [rs+imm], an immediate, a target.
_OPERANDS = {
    Op.LD: ("rd", "place"),
    Op.ST: ("rt", "place"),
    Op.CAS: ("rd", "place", "rt"),
    Op.FETCH: ("place",),
    Op.LI: ("rd", "imm"),
    Op.ADDI: ("rd", "rs", "imm"),
    Op.BNE: ("rs", "rt", "target"),
    Op.BEQ: ("rs", "rt", "target"),
    Op.SYSCALL: (),
}


def assemble_text(
    text: str, symbols: Mapping[str, int] | None = None, before: Sequence[Insn] = ()
) -> tuple[Insn, ...]:
    """`before`, then the instructions of `text`; ValueError `line N: ...` for the first mistake.

    `symbols` are names for numbers, such as those of system calls. Targets of branches are labels,
    or numbers that count the instructions of the text.
    """
    labels: dict[str, int] = {}
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = re.split(r"[#;]", line, maxsplit=1)[0].strip()
        while label := _LABEL.match(line):
            if label[1] in labels:
                raise ValueError(f"line {number}: label {label[1]!r} again")
            labels[label[1]] = len(before) + len(lines)
            line = line[label.end() :]
        if line:
            lines.append((number, line))
    known = {**(symbols or {}), **labels}
    program = list(before)
    for number, line in lines:
        try:
            insn = _instruction(line, known)
            if insn.op in (Op.BNE, Op.BEQ) and line.rpartition(",")[2].strip() not in known:
                insn = insn._replace(imm=insn.imm + len(before))
            program.append(insn)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return isa.check_text(tuple(program))


def _instruction(line: str, known: Mapping[str, int]) -> Insn:
    name, _, rest = line.partition(" ")
    operation = Op.__members__.get(name.upper())
    if operation is None:
        every = " ".join(op.name.lower() for op in Op)
        raise ValueError(f"no instruction {name!r}, expected one of {every}")
    kinds = _OPERANDS[operation]
    words = [word.strip() for word in rest.split(",")] if rest.strip() else []
    if len(words) != len(kinds):
        raise ValueError(f"{name} has {len(words)} operands, expected {len(kinds)}")
    fields: dict[str, int] = {}
    for kind, word in zip(kinds, words, strict=True):
        if kind == "place":
            place = _PLACE.match(word)
            if place is None:
                raise ValueError(f"{word!r}, expected [rN+offset]")
            fields["rs"] = _register(place[1])
            fields["imm"] = int(f"{place[2] or ''}{place[3] or 0}", 0)
        elif kind in ("imm", "target"):
            fields["imm"] = known[word] if word in known else _number(word)
        else:
            fields[kind] = _register(word)
    return Insn(operation, **fields)


def _register(word: str) -> int:
    if not re.fullmatch(r"r\d{1,2}", word) or int(word[1:]) >= isa.NREGS:
        raise ValueError(f"{word!r}, expected a register r0 to r{isa.NREGS - 1}")
    return int(word[1:])


def _number(word: str) -> int:
    try:
        return int(word, 0)
    except ValueError:
        raise ValueError(f"{word!r}, expected a number or a label") from None
