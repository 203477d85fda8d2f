"""The trees of DragonFly's sources that a run may model, and which one a policy comes from.

`host.tree` chooses one; left open it is the policy's own (`rmap.tree_of`). What differs between
them hangs off it by name in `quirks.py`, and can be set one by one.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Tree: TypeAlias = Literal["5.4", "2020", "patch", "2026"]

TREES: Final[dict[Tree, str]] = {
    "5.4": "release 5.4 of 2018 (cb7663d3b0): a pv_entry for each PTE",
    "2020": "master of 2020-07-24 (f875a8eec7): extent scan, MAP_VPAGETABLE still there",
    "patch": "patch #3389 of 2025-12-18, restoring what January 2021 had removed",
    "2026": "the trees of 2026 (lileding 6c77c33e): VPAGETABLE entries are wired",
}
