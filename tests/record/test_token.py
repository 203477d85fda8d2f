"""Replay tokens: what goes in comes out; what was damaged is recognised."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.record.token import Token, pack, parse, schedule_crc, unpack
from vkemu.verdict import UsageError

TOKENS = st.builds(
    Token,
    scenario=st.text(max_size=20),
    scenario_digest=st.binary(min_size=6, max_size=6),
    model_digest=st.binary(min_size=6, max_size=6),
    settings=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    strategy=st.sampled_from(["random", "pct", "dpor"]),
    seed=st.integers(0, (1 << 63) - 1),
    steps=st.integers(0, 1 << 40),
    schedule_crc=st.integers(0, (1 << 32) - 1),
    choices=st.binary(max_size=50),
)
SCHEDULES = st.lists(st.integers(0, 65535), max_size=300).map(lambda tids: array("H", tids))


@given(TOKENS)
def test_a_token_is_one_word_and_reads_back(token: Token) -> None:
    word = str(token)

    assert token == parse(f" {word}\n")
    assert word.replace(".", "").replace("-", "").replace("_", "").isalnum()


@given(TOKENS, st.data())
def test_one_wrong_character_is_recognised(token: Token, data: st.DataObject) -> None:
    word = str(token)
    # The last character may hold bits that belong to no byte.
    place = data.draw(st.integers(4, len(word) - 2))
    other = data.draw(st.sampled_from([c for c in "AZaz09-_" if c != word[place]]))

    with pytest.raises(UsageError):
        parse(word[:place] + other + word[place + 1 :])


@given(TOKENS)
def test_a_token_cut_short_is_recognised(token: Token) -> None:
    with pytest.raises(UsageError, match="token: "):
        parse(str(token)[:-5])


@given(SCHEDULES)
def test_a_schedule_reads_back(choices: array[int]) -> None:
    assert choices == unpack(pack(choices))


def test_few_switches_make_a_short_schedule() -> None:
    assert len(pack(array("H", [1] * 5000 + [2] * 3000 + [1] * 9000))) < 40


@pytest.mark.parametrize("packed", [b"", b"junk", pack(array("H", [1]))[:-1]])
def test_a_damaged_schedule_is_a_usage_error(packed: bytes) -> None:
    with pytest.raises(UsageError, match="schedule is damaged"):
        unpack(packed)


@given(SCHEDULES, SCHEDULES)
def test_the_checksum_tells_schedules_apart(a: array[int], b: array[int]) -> None:
    assert (a == b) == (schedule_crc(a) == schedule_crc(b))
