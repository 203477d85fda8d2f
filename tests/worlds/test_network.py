"""Clients and servers on the network in memory: what arrives, in how many pieces, and what not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration.result import ExplorationError

from tests.worlds import httpx_programs, network_programs, programs


def ends(program: Any, backend: str, **options: Any) -> tuple[Any, Counter[str]]:
    found: Counter[str] = Counter()

    def each(run: Any) -> None:
        found[run.message() if run.error is not None else repr(run.execution.outcome)] += 1

    result = explore(program, backend=backend, stop_on_failure=False, each=each, **options)
    assert result.doubt == ""
    return result, found


@pytest.mark.parametrize(
    ("program", "order"),
    [
        (network_programs.shout_on_sockets, "arrival"),
        (network_programs.shout_on_sockets, "any"),
        pytest.param(network_programs.shout_on_asyncio, "arrival", marks=pytest.mark.long),
    ],
)
def test_dpor_ends_as_dfs_does_in_fewer_executions(program: Any, order: str) -> None:
    result, found = ends(program, "asyncio", order=order)
    plain, all_ = ends(program, "asyncio", order=order, strategy="dfs", max_executions=10_000)

    assert (result.exhausted, plain.exhausted) == (True, True)
    assert result.executions < plain.executions
    assert set(found) == set(all_) == {"b'ABC\\n'"}


def test_more_than_a_window_waits_for_who_reads() -> None:
    result, found = ends(network_programs.protocols_on_sockets, "asyncio")

    assert result.exhausted
    assert set(found) == {repr(b"x" * 100)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "backend"),
    [
        (network_programs.shout_on_trio, "trio"),
        pytest.param(network_programs.shout_on_anyio, "anyio+asyncio", marks=pytest.mark.long),
        pytest.param(network_programs.shout_on_anyio, "anyio+trio", marks=pytest.mark.long),
    ],
)
def test_a_read_is_no_message(program: Any, backend: str) -> None:
    _, whole = ends(program, backend, strategy="random", max_executions=2)
    _, pieces = ends(program, backend, strategy="random", max_executions=4, network="partial")

    assert set(whole) == {"b'ABC'"}
    assert set(pieces) >= {"b'A'"}


def test_a_connection_may_be_reset_at_any_time() -> None:
    result, found = ends(network_programs.shout_on_asyncio, "asyncio", network="reset")

    assert result.exhausted
    assert "b'ABC\\n'" in found
    assert any("ConnectionResetError" in end for end in found)
    assert any("BrokenPipeError" in end for end in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "backend"),
    [
        (httpx_programs.two_requests_on_trio, "trio"),
        (httpx_programs.two_requests_on_asyncio, "asyncio"),
    ],
)
def test_httpx_as_it_stands_against_a_server_of_the_same_program(
    program: Any, backend: str
) -> None:
    _, found = ends(program, backend, strategy="pos", max_executions=2, network="partial")

    assert found == {"('a', 'b')": 2}


def test_a_port_where_nobody_listens() -> None:
    _, found = ends(network_programs.nobody_listens, "trio")

    assert set(found) == {"'OSError'"}


@pytest.mark.parametrize(
    ("program", "backend", "where"),
    [
        (programs.real_connection, "trio", "127.0.0.1:80"),
        (programs.asyncio_connection, "asyncio", "127.0.0.1:80"),
    ],
)
def test_what_the_program_does_not_serve_itself_is_refused(
    program: Any, backend: str, where: str
) -> None:
    expected = f"the program connects to {where}, where nothing of it listens"
    with pytest.raises(ExplorationError, match=expected):
        explore(program, backend=backend)


def test_a_bad_word_is_one_line() -> None:
    expected = "network: 'slow', expected some of partial, reset"
    with pytest.raises(ValueError, match=expected):
        explore(programs.gathered, backend="asyncio", network="partial, slow")
