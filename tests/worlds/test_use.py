"""`explored` on async tests with their fixtures, the marker, and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.shell import Shell

TESTS = """
import asyncio
import pytest
import trio
import vkemu

made = []

@pytest.fixture
async def box():
    await trio.sleep(0)
    made.append(1)
    yield [0]
    await trio.sleep(0)

async def increment(box):
    value = box[0]
    await trio.sleep(0)
    box[0] = value + 1

@vkemu.explored()
async def test_lost(box, nursery, tmp_path):
    async with trio.open_nursery() as inner:
        inner.start_soon(increment, box)
        inner.start_soon(increment, box)
    assert box[0] == 2

@pytest.mark.trio
@vkemu.explored()
async def test_kept(box):
    async with trio.open_nursery() as inner:
        inner.start_soon(increment, box)
    assert box[0] == 1

@pytest.mark.vkemu(strategy="pct", max_executions=5, backend="asyncio")
@pytest.mark.parametrize("count", [1, 2])
async def test_locked(count):
    lock = asyncio.Lock()
    total = 0
    async def one():
        nonlocal total
        async with lock:
            value = total
            await asyncio.sleep(0)
            total = value + 1
    await asyncio.gather(*[one() for _ in range(count)])
    assert total == count

def test_fixtures_are_made_in_every_execution():
    assert len(made) > 3
"""
PROGRAM = """
import trio

async def two_locks():
    a, b = trio.Lock(), trio.Lock()
    async def take(first, second):
        async with first:
            async with second:
                pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, a, b)
        nursery.start_soon(take, b, a)

async def with_argument(x):
    pass
"""


OF_ANYIO = """
import anyio
import pytest
import sniffio
import vkemu

pytestmark = pytest.mark.anyio

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def tally(anyio_backend):
    await anyio.sleep(0)
    yield [0]
    await anyio.sleep(0)

@pytest.fixture
def named(tally, anyio_backend_name):
    yield tally, anyio_backend_name
    tally.append(anyio_backend_name)

@vkemu.explored()
async def test_lost(named):
    tally, name = named
    assert tally == [0]
    assert sniffio.current_async_library() == name
    async def add():
        value = tally[0]
        await anyio.sleep(0)
        tally[0] = value + 1
    async with anyio.create_task_group() as group:
        group.start_soon(add)
        group.start_soon(add)
    assert tally[0] == 2

@vkemu.explored(strategy="random", max_executions=3)
async def test_told(anyio_backend):
    assert sniffio.current_async_library() == anyio_backend

"""


@pytest.mark.long
def test_tests_of_anyios_plugin_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "test_of_anyio.py").write_text(OF_ANYIO)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_of_anyio.py"]

    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=140
    )

    assert "2 failed, 2 passed" in done.stdout, done.stdout
    assert done.stdout.count("assert 1 == 2 (after") == 2
    assert "reads tally test_of_anyio.py" in done.stdout


@pytest.mark.slow
def test_tests_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "test_as_it_stands.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_as_it_stands.py"]

    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=140
    )

    assert "1 failed, 4 passed" in done.stdout, done.stdout
    assert "reads box[...]" in done.stdout or "writes box" in done.stdout
    (line,) = {line for line in done.stdout.splitlines() if line.startswith("pytest ")}
    token = line.rpartition("=")[2]
    again = subprocess.run(
        [*command[:-1], "test_as_it_stands.py::test_lost", f"--vkemu-replay={token}"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=140,
    )  # fmt: skip
    assert "assert 1 == 2 (replayed)" in again.stdout, again.stdout


def test_the_command_line_takes_a_function_as_it_stands(shell: Shell) -> None:
    Path("program.py").write_text(PROGRAM)

    status, out, _ = shell("explore", "program.py::two_locks")

    assert status == 1
    assert "take.0 waits for Lock.acquire held by take.1 at program.py:8" in out


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("program.py::nothing", "no async function 'nothing'"),
        ("program.py::with_argument", "with_argument takes x"),
        ("missing.py::main", "no such file"),
    ],
)
def test_bad_subjects_are_one_line(shell: Shell, subject: str, expected: str) -> None:
    Path("program.py").write_text(PROGRAM)

    status, _, err = shell("explore", subject)

    assert status == 2
    assert expected in err
