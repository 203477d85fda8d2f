"""Sessions over unix sockets: descriptors, credentials, processes that die, paths."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.serving.address import connect, listen
from vkemu.serving.transport import UnixStream
from vkprotocol.codec import frame
from vkprotocol.messages import Credentials, Madvise

from tests.serving.serving import ASK, GREETING, Serving, guest, serving
from tests.serving.stub import hello
from vkguest.kern.errors import HostGone

backends = pytest.mark.parametrize("backend", BACKENDS)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@asynccontextmanager
async def socket_serving(path: Path) -> AsyncIterator[Serving]:
    async with serving() as host, listen(path) as listener:

        async def accepting() -> None:
            while True:
                raw = await listener.accept()
                assert raw is not None
                stream = await listener.stream(raw)
                host.group.start_soon(host.serve, stream)

        async with anyio.create_task_group() as group:
            group.start_soon(accepting)
            yield host
            group.cancel_scope.cancel()


@backends
def test_a_guest_over_a_unix_socket(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "host"
        async with socket_serving(path) as host:
            assert path.stat().st_mode & 0o777 == 0o600
            assert sorted(await guest(await connect(path), hello(vcpus=2), 20)) == list(
                range(1, 41)
            )
            assert host.host.images == []
        assert not path.exists()

    on_backend(backend, main)


@backends
def test_the_image_comes_as_a_descriptor(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "image"
        file.write_bytes(b"the memory image")
        async with socket_serving(tmp_path / "host") as host:
            before = open_descriptors()
            with file.open("rb") as image:
                stream = await connect(tmp_path / "host")
                assert await guest(stream, hello(image=True), 3, image.fileno()) == [1, 2, 3]
            await anyio.wait_all_tasks_blocked()

            assert host.host.images == [b"the memory image"]
            assert open_descriptors() == before

    on_backend(backend, main)


@backends
def test_descriptors_nobody_asked_for_are_closed(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with socket_serving(tmp_path / "host") as host:
            before = open_descriptors()
            stream = await connect(tmp_path / "host")
            assert isinstance(stream, UnixStream)
            with (tmp_path / "other").open("wb") as other:
                await stream.send(frame(hello()), [other.fileno()])
                assert await stream.receive()
                connected = open_descriptors()
                await stream.send(frame(Madvise(0, 1, 0, lwp=0, seq=0)), [other.fileno()])
                assert await stream.receive()
                assert open_descriptors() == connected
            await stream.aclose()
            while not host.lines:
                await anyio.lowlevel.checkpoint()

            assert open_descriptors() == before

    on_backend(backend, main)


@backends
def test_credentials_are_checked(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with socket_serving(tmp_path / "host") as host:
            liar = Credentials(pid=1, uid=os.getuid() + 1, gid=os.getgid())
            stream = await connect(tmp_path / "host")
            with pytest.raises(HostGone, match=r"EPERM: runs as uid \d+, not \d+"):
                await guest(stream, hello(credentials=liar), 1)
            assert host.host.guests == []

    on_backend(backend, main)


@backends
def test_a_process_that_dies_is_noticed(backend: str, tmp_path: Path) -> None:
    """As the kernel closes a socket: with bytes on their way, and a reset."""

    async def main() -> None:
        path = tmp_path / "host"
        async with socket_serving(path) as host:
            for stream in (b"", GREETING, GREETING + ASK + ASK[:5]):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(os.fspath(path))
                    raw.sendall(stream)
            while len(host.lines) < 3:
                await anyio.lowlevel.checkpoint()

            assert await guest(await connect(path), hello(), 2) != []
            while len(host.lines) < 4:
                await anyio.lowlevel.checkpoint()
            assert host.host.released == [1, 2, 3]

    on_backend(backend, main)


@backends
def test_one_path_one_host(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "host"
        async with listen(path):
            with pytest.raises(OSError, match="a host is serving there already"):
                async with listen(path):
                    pass
        path.write_text("a file")
        with pytest.raises(OSError, match="exists and is no socket"):
            async with listen(path):
                pass
        assert path.read_text() == "a file"
        with pytest.raises(OSError, match=f"{path}: "):
            await connect(path)

    on_backend(backend, main)


@backends
def test_a_socket_left_behind_is_taken_over(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "host"
        with socket.socket(socket.AF_UNIX) as raw:
            raw.bind(os.fspath(path))
        async with listen(path) as listener, anyio.create_task_group() as group:

            async def answer() -> None:
                raw = await listener.accept()
                assert raw is not None
                stream = await listener.stream(raw)
                await stream.send(b"hi")
                await stream.aclose()

            group.start_soon(answer)
            stream = await connect(path)
            assert await stream.receive() == b"hi"
            assert await stream.receive() == b""
            await stream.aclose()

    on_backend(backend, main)
