"""Whatever peers say, in whatever order: at worst it is their own end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.serving.drawn import Say, endings, play, sessions


@pytest.mark.slow
@settings(max_examples=40)
@given(sessions, endings)
def test_no_session_disturbs_another(said: list[Say], ends: list[str]) -> None:
    play(said, ends)


@pytest.mark.long
@settings(max_examples=20_000)
@given(sessions, endings)
def test_no_session_disturbs_another_at_length(said: list[Say], ends: list[str]) -> None:
    play(said, ends)
