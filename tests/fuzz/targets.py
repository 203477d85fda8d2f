"""What is fuzzed: properties that take whatever Hypothesis makes of a string of bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.launch.test_scenario_errors import test_whatever_tables_a_file_has_the_answer_is_a_line
from tests.protocol.test_connection import test_changed_streams_are_at_worst_the_peers_error
from tests.serving.test_drawn_sessions import test_no_session_disturbs_another

_PROPERTIES: Final[dict[str, Any]] = {
    "connection": test_changed_streams_are_at_worst_the_peers_error,
    "session": test_no_session_disturbs_another,
    "scenario": test_whatever_tables_a_file_has_the_answer_is_a_line,
}
NAMES: Final = tuple(_PROPERTIES)


def target(name: str) -> Callable[[bytes], object]:
    fuzz: Callable[[bytes], object] = _PROPERTIES[name].hypothesis.fuzz_one_input
    return fuzz


def corpus(name: str) -> Path:
    """One input a line, in hexadecimal."""
    return Path(__file__).parent / "corpus" / f"{name}.txt"


def inputs(name: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in corpus(name).read_text().split()]
