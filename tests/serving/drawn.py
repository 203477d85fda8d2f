"""A grammar of sessions: what peers may say, right, wrong or cut off, and a host that hears it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
from hypothesis import strategies as st
from msgspec import inspect
from msgspec.structs import replace
from vkemu.executors.backend import on_backend
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import FAILURES
from vkemu.launch.scenario import Host, Scenario
from vkemu.serving.server import Server
from vkemu.serving.transport import Broken, MemoryStream, memory_pair
from vkprotocol import insn
from vkprotocol.codec import frame
from vkprotocol.connection import Connection, Role
from vkprotocol.errors import LocalProtocolError
from vkprotocol.insn import Insn, Op, Trapframe
from vkprotocol.messages import CpuOps, Exit, Goodbye, Mmap, Sysctl
from vkprotocol.mman import MAP_SHARED, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import VMSPACE_CTL_RUN

from tests.protocol.strategies import REQUESTS, message_of, messages
from tests.serving.stub import hello

SMALL = Scenario(name="drawn", host=Host(pages=200, cpus=5, run_budget=2000), guest=())
GUESTS = 2
PAGES = 64

# Where something may be, beside anything at all.
_addresses = st.sampled_from(
    [0, 8, PAGE_SIZE, 1 << 30, (1 << 30) + PAGE_SIZE, 0x1000_0000, VM_MAX_USER_ADDRESS - PAGE_SIZE]
)
_lengths = st.sampled_from([0, 1, PAGE_SIZE, 3 * PAGE_SIZE, PAGES * PAGE_SIZE, 1 << 40])
_likely: dict[str, st.SearchStrategy[Any]] = {
    "lwp": st.integers(0, 1),
    "id": st.sampled_from([1, 0x1000, 0x2000]),
    "addr": _addresses,
    "length": _lengths,
    "nbyte": _lengths,
    "prot": st.integers(0, 7),
    "flags": st.sampled_from([1, 2, 3, 0x1001, 0x1002, 0x11, 0x12, 0x1012, 0x10001, 0x10011]),
    "fd": st.sampled_from([-1, 3, 4]),
    "offset": st.sampled_from([0, PAGE_SIZE, -1]),
    "behav": st.integers(0, 16),
    "value": st.sampled_from([0, PAGE_SIZE | 3, (1 << 63) - 1]),
    "cmd": st.sampled_from([VMSPACE_CTL_RUN, 0, 7]),
    "signo": st.integers(-1, 33),
    "target": st.integers(0, 2),
    "name": st.sampled_from(["vm.vkernel_enable", "vm.v_free_min", "x", ""]),
    "ops": st.lists(
        st.one_of(
            st.builds(insn.load, _addresses),
            st.builds(insn.store, _addresses, st.integers(0, 9)),
        ),
        max_size=4,
    ).map(tuple),
    "frame": st.builds(
        Trapframe,
        text=st.lists(
            st.builds(
                Insn,
                st.sampled_from(list(Op)),
                st.integers(0, 7),
                st.integers(0, 7),
                st.sampled_from([0, 1, 8, -8, PAGE_SIZE]),
            ),
            min_size=1,
            max_size=5,
        ).map(tuple),
    ),
}


def _request(kind: type[Any]) -> st.SearchStrategy[Any]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    names = [field.encode_name for field in info.fields]
    fields = {name: _likely[name] for name in names if name in _likely}
    fields["seq"] = st.just(0)  # renumbered
    anything = message_of(kind)  # type: ignore[arg-type] # a type can be hashed
    return anything if len(fields) < len(names) else st.builds(kind, **fields) | anything


@dataclass(frozen=True)
class Say:
    """Peer `who` sends bytes: a request, renumbered if `in_turn`, any message, or anything."""

    who: int
    what: Any
    in_turn: bool = True


says = st.builds(
    Say,
    st.integers(0, GUESTS - 1),
    st.one_of(
        st.sampled_from(REQUESTS).flatmap(_request),
        st.sampled_from(REQUESTS).flatmap(_request),
        messages(),
        st.binary(max_size=12),
    ),
    st.sampled_from([True, True, True, False]),
)
sessions = st.lists(says, max_size=12)
endings = st.lists(st.sampled_from(["goodbye", "exit", "vanish", "cut"]), min_size=2, max_size=2)


class Talker:
    """One end of a stream in memory; what the host says is read and mostly forgotten."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.seq = 0

    async def send(self, what: Any, *, in_turn: bool = True) -> None:
        if isinstance(what, REQUESTS) and in_turn:
            self.seq += 1
            what = replace(what, seq=self.seq)
        try:
            await self.stream.send(what if isinstance(what, bytes) else frame(what))
        except (Broken, LocalProtocolError):
            pass  # the host has had enough of it; or no bytes say this

    async def read_on(self) -> None:
        """To the end, or the host would wait for us."""
        try:
            while await self.stream.receive():
                pass
        except Broken:
            pass


class Bystander(Talker):
    """A guest that must notice nothing of all this."""

    async def __aenter__(self) -> Bystander:
        self.end = Connection(Role.GUEST)
        self.heard: list[Any] = []
        await self.stream.send(self.end.send(hello("good", memory=PAGES * PAGE_SIZE)))
        await self._hear()
        mapped = await self.ask(Mmap, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0)
        self.va = mapped.value
        await self.ask(CpuOps, (insn.store(self.va, 4711),))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is None:
            assert (await self.ask(CpuOps, (insn.load(self.va),))).values == (4711,)
            assert (await self.ask(Sysctl, "vm.vkernel_enable")).value == 1
        await self.stream.aclose()

    async def ask(self, kind: type[Any], *args: Any) -> Any:
        self.seq += 1
        await self.stream.send(self.end.send(kind(*args, lwp=0, seq=self.seq)))
        return await self._hear()

    async def _hear(self) -> Any:
        while not self.heard:
            self.heard += self.end.receive_bytes(await self.stream.receive())
        return self.heard.pop(0)


def play(said: list[Say], ends: list[str]) -> None:
    """A host, a bystander, and peers who say all this and end so."""
    on_backend("trio", lambda: _play(said, ends))


async def _play(said: list[Say], ends: list[str]) -> None:
    live = Live(time_scale=1.0)
    machine = assemble(SMALL, None, live)
    told: list[str] = []
    server = Server(
        live, machine.kernel, told.append, on_violation="guest", blame=machine.oracle.blame,
        failures=FAILURES, forget=machine.oracle.forget,
    )  # fmt: skip
    async with anyio.create_task_group() as group:
        group.start_soon(server.run)

        def dial() -> MemoryStream:
            near, far = memory_pair()
            group.start_soon(server.serve, far)
            return near

        async with Bystander(dial()):
            peers = [Talker(dial()) for _ in ends]
            for number, peer in enumerate(peers):
                group.start_soon(peer.read_on)
                await peer.send(hello(f"p{number}", 2, memory=PAGES * PAGE_SIZE))
            for say in said:
                await peers[say.who].send(say.what, in_turn=say.in_turn)
            for peer, end in zip(peers, ends, strict=True):
                await _end(peer, end)
            while len(server.sessions) > 1 or any(not p.zombie for p in machine.kernel.procs[1:]):
                await anyio.lowlevel.checkpoint()
        server.shutdown()
    live.close()
    assert not server.counts["bugs"], told
    if not server.containment.violations:
        machine.oracle.finish()


async def _end(peer: Talker, end: str) -> None:
    if end == "goodbye":
        await peer.send(Goodbye())
    elif end == "exit":
        await peer.send(Exit(lwp=0, seq=0))
        await peer.send(Exit(lwp=1, seq=0))
        await peer.send(Goodbye())
    elif end == "cut":
        await peer.send(b"\xc6\0\0")
    await peer.stream.aclose()
