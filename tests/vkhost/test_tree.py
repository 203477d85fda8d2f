"""Which tree a host models, and what hangs off it."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from tests.vkhost.vkernel import Vkernel
from vkhost.quirks import AS_IN, Quirks
from vkhost.rmap import OWN_TREE, POLICIES, tree_of
from vkhost.tree import TREES, Tree


def test_every_switch_says_what_it_is_in_every_tree() -> None:
    assert list(AS_IN) == list(Quirks.__struct_fields__)
    assert list(TREES) == list(get_args(Tree))
    for tree in TREES:
        whole = msgspec.structs.asdict(Quirks().on(tree))
        assert None not in whole.values()
        msgspec.convert(whole, Quirks)  # each is what its field may be


def test_which_tree_a_policy_comes_from() -> None:
    built_into = {"pv_entry": "5.4", "extent_scan": "2020", "removed": "2020", "wired": "2026"}

    assert {p: tree_of(p) for p in POLICIES} == {p: built_into.get(p, "patch") for p in POLICIES}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_policy_brings_its_tree_along(policy: str) -> None:
    assert set(OWN_TREE) <= POLICIES.keys()
    k = Vkernel(policy)

    assert k.kernel.tree == tree_of(policy)
    assert k.kernel.quirks == Quirks().on(tree_of(policy))


@pytest.mark.parametrize("tree", list(TREES))
def test_the_host_s_own_tree_comes_first_and_a_switch_before_it(tree: Tree) -> None:
    k = Vkernel("vpte_list", tree=tree, quirks=Quirks(didcow_or=True))
    expected: dict[str, Any] = {name: as_in.of(tree) for name, as_in in AS_IN.items()}

    assert msgspec.structs.asdict(k.kernel.quirks) == {**expected, "didcow_or": True}


def test_no_two_trees_are_the_same() -> None:
    assert len({Quirks().on(tree) for tree in TREES}) == len(TREES)
