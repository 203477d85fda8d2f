"""Tokens of litmus failures come back as they were, with a tree and without."""

from __future__ import annotations

import base64

import msgspec
import pytest
from vkemu.launch.scenario import QuirkTable
from vkemu.litmus.file import load_litmus
from vkemu.litmus.token import LitmusToken, identity, parse
from vkemu.verdict import UsageError


@pytest.mark.parametrize("tree", ["", "2020"])
def test_a_token_comes_back_as_it_was(tree: str) -> None:
    token = LitmusToken("W07-cluster-launder", "vpte_list", "", "0123456789ab", "vkx1.AAAA", tree)

    assert parse(str(token)) == token


@pytest.mark.parametrize("head", ['["a","b","c"]', '["a","b","c","d","e","f"]', "[1,2,3,4]", "x"])
def test_a_first_word_of_another_shape_is_refused(head: str) -> None:
    word = base64.urlsafe_b64encode(head.encode()).decode().rstrip("=")

    with pytest.raises(UsageError, match="first word"):
        parse(f"vkl1.{word}.vkx1.AAAA")


class Grown(QuirkTable, frozen=True):
    one_more: bool | None = None


def test_a_switch_that_a_test_does_not_touch_is_no_part_of_it() -> None:
    """Or every switch that the kernels get would be the end of all tokens of variants."""
    variant = load_litmus("W26", "did-cow")
    said = msgspec.structs.asdict(variant.file.quirks)

    def grown(value: bool | None) -> str:
        file = msgspec.structs.replace(variant.file, quirks=Grown(**said, one_more=value))
        return identity(msgspec.structs.replace(variant, file=file))

    assert grown(None) == identity(variant)
    assert grown(True) != identity(variant) != identity(load_litmus("W26"))
