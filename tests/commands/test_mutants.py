"""`vkemu mutants` says of every defect what it is."""

from __future__ import annotations

import json

from tests.shell import Shell
from vkguest.mutants import GUEST_MENDS, GUEST_MUTANTS
from vkhost.mutants import MUTANTS


def test_every_defect_is_listed(shell: Shell) -> None:
    status, out, _ = shell("mutants", "--list", "--json")

    rows = json.loads(out)
    assert status == 0
    assert {row["name"] for row in rows} == {*MUTANTS, *GUEST_MUTANTS, *GUEST_MENDS}
    assert all(row["description"] for row in rows)


def test_a_part_of_a_name_chooses(shell: Shell) -> None:
    _, out, _ = shell("mutants", "--list", "ilock-wake-one")

    assert out.startswith("ilock-wake-one  (host)\n")
    assert "windows: W29" in out
