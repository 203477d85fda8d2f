"""dragonfly.tsv, of a clone of DragonFly: `python -m tests.docs.dragonfly_table CLONE`.

A row for every function that our docstrings cite, and for every function of ours with the name of
one of DragonFly's. Whether a tree has it says the clone, and not we. What its history does not
reach - the patch, the trees of 2026, Linux - stays in the table as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import PurePath

from tests.docs.fidelity_page import TABLE, Cited, citations, definitions, known

COMMITS = {"5.4": "cb7663d3b0", "2020": "f875a8eec7"}
# The first of them that has a function is where it is.
PARTS = (
    "sys/vm", "sys/platform/pc64", "sys/platform/vkernel64", "sys/kern", "sys/cpu/x86_64",
    "sys/sys",
)  # fmt: skip
# A name at the head of a line, or in a macro there; of data, too.
HEAD = (
    r"^(static .*|(__\w+ )?struct .*|#define\s+|[A-Z_]+\(|\w+ )?\b[A-Za-z_]\w*\)?\s*[(\[]"
    r"|^[A-Z_]*ENTRY\(\w+\)"
)
NAMES = re.compile(r"ENTRY\((\w+)\)|(\w+)\)?\s*[(\[]")


def in_tree(clone: str, commit: str) -> dict[str, list[str]]:
    """Name -> the files that have it at the head of a line, those of the first part first."""
    found: dict[str, list[str]] = {}
    for part in PARTS:
        asked = ["git", "-C", clone, "grep", "-P", HEAD, commit, "--", f"{part}/*.[chs]"]
        lines = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=True)
        for line in lines.stdout.splitlines():
            _, path, text = line.split(":", 2)
            if text.endswith(";") and "(" in text:
                continue  # a prototype
            for match in NAMES.finditer(text):
                files = found.setdefault(match[1] or match[2], [])
                if PurePath(path).name not in files:
                    files.append(PurePath(path).name)
    return found


def rows(clone: str) -> dict[Cited, str]:
    trees = {tree: in_tree(clone, commit) for tree, commit in COMMITS.items()}
    wanted = dict.fromkeys(citations())
    cited = {name for _, name in wanted}
    for name in definitions():
        files = [file for names in trees.values() for file in names.get(name, ())]
        if files and name not in cited:
            # Of a prototype that goes over lines the head is no other than a function's.
            wanted[min(files, key=lambda file: file.endswith(".h")), name] = None
    before = known()
    table = {}
    for file, name in wanted:
        has = [tree for tree, names in trees.items() if file in names.get(name, ())]
        has += [tree for tree in before.get((file, name), "").split() if tree not in trees]
        if has:
            table[file, name] = " ".join(has)
    return table


if __name__ == "__main__":
    made = rows(sys.argv[1])
    lines = (f"{file}\t{name}\t{has}\n" for (file, name), has in made.items())
    TABLE.write_text("".join(sorted(lines)))
