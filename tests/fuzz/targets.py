"""What is fuzzed: properties that take whatever Hypothesis makes of a string of bytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

# Imported when asked for: to instrument what another one needs takes its time.
_PROPERTIES: Final = {
    "connection": (
        "tests.protocol.test_connection",
        "test_changed_streams_are_at_worst_the_peers_error",
    ),
    "session": ("tests.serving.test_drawn_sessions", "test_no_session_disturbs_another"),
    "scenario": (
        "tests.launch.test_scenario_errors",
        "test_whatever_tables_a_file_has_the_answer_is_a_line",
    ),
}
NAMES: Final = tuple(_PROPERTIES)


def target(name: str) -> Callable[[bytes], object]:
    module, function = _PROPERTIES[name]
    fuzz: Callable[[bytes], object] = getattr(
        import_module(module), function
    ).hypothesis.fuzz_one_input
    return fuzz


def corpus(name: str) -> Path:
    """One input a line, in hexadecimal."""
    return Path(__file__).parent / "corpus" / f"{name}.txt"


def inputs(name: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in corpus(name).read_text().split()]
