"""Tokens of litmus failures come back as they were, with a tree and without."""

from __future__ import annotations

import base64

import pytest
from vkemu.litmus.token import LitmusToken, parse
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
