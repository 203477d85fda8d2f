"""What the protocol costs: per message, and per request over a unix socket between two processes.

    python tests/benchmarks/protocol_bench.py [--requests 4000] [--json]

The yardstick is a bare echo: anyio and msgpack, dictionaries, no checks, no kernel threads - what a
few lines would do. `stub` answers from a kernel thread of the live executor, `host` is the real
one answering a system call (sysctl) and a batch of one memory operation (a load through its TLB).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgpack
from anyio.abc import UNIXSocketStream
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.scenario import Host, Scenario
from vkemu.serving.address import Listener, connect, listen
from vkemu.serving.guest_session import GuestSession
from vkemu.serving.host_session import HostSession
from vkemu.serving.server import Server
from vkprotocol import insn
from vkprotocol.codec import decode, encode, frame
from vkprotocol.connection import Connection, Role
from vkprotocol.messages import AnyRequest, CpuOps, Madvise, Mmap, Sysctl
from vkprotocol.mman import MAP_SHARED, PROT_READ, PROT_WRITE

from tests.protocol.examples import EXAMPLES
from tests.serving.stub import StubHost, hello
from vkguest.vkernel64.port import MailboxPort

KINDS = ("bare", "stub", "host sysctl", "host load")
REPEATS = 5


def best_of(function: Callable[[], object], count: int) -> float:
    """Nanoseconds of processor time for one call, the best of REPEATS rounds."""
    rounds = []
    for _ in range(REPEATS):
        began = time.process_time_ns()
        for _ in range(count):
            function()
        rounds.append((time.process_time_ns() - began) / count)
    return min(rounds)


def per_message(count: int) -> dict[str, dict[str, float]]:
    """Nanoseconds to encode, decode, frame (checked) each message; msgpack's for comparison."""
    table = {}
    for name, message in EXAMPLES.items():
        payload = encode(message)
        plain = msgpack.unpackb(payload)
        table[name] = {
            "bytes": len(payload),
            "encode": best_of(partial(encode, message), count),
            "decode": best_of(partial(decode, payload), count),
            "frame": best_of(partial(frame, message), count),
            "msgpack_encode": best_of(partial(msgpack.packb, plain), count),
            "msgpack_decode": best_of(partial(msgpack.unpackb, payload), count),
        }
    return table


def sans_io(count: int) -> float:
    """Nanoseconds of a request and its reply through both Connections, without any stream."""
    host, guest = Connection(Role.HOST), Connection(Role.GUEST)
    list(host.receive_bytes(guest.send(EXAMPLES["hello"])))
    list(guest.receive_bytes(host.send(EXAMPLES["hello_reply"])))
    request, reply = EXAMPLES["vmspace_destroy"], EXAMPLES["reply.errno"]

    def once() -> None:
        list(host.receive_bytes(guest.send(request)))
        list(guest.receive_bytes(host.send(reply)))

    return best_of(once, count)


# The two ends of the socket.


async def serve(kind: str, path: Path) -> None:
    if kind == "bare":
        async with await anyio.create_unix_listener(path) as plain:
            print("ready", flush=True)
            began = time.process_time()
            await bare_echo(await plain.accept())  # type: ignore[arg-type]
            print(time.process_time() - began, flush=True)
        return
    async with listen(path) as listener:
        print("ready", flush=True)
        began = time.process_time()
        await serve_one(kind, listener)
        print(time.process_time() - began, flush=True)


async def serve_one(kind: str, listener: Listener) -> None:
    live = Live(time_scale=1.0)
    if kind == "stub":
        host = StubHost(live)
        raw = await listener.accept()
        assert raw is not None
        stream = await listener.stream(raw)
        session = HostSession(live, stream, host)
        async with anyio.create_task_group() as group:
            with live.source():
                live.spawn("init", forever())
                group.start_soon(live.run)
                await session.run()
                live.stop()
        return
    scenario = Scenario(name="bench", host=Host(pages=600, cpus=8), guest=())
    machine = assemble(scenario, None, live)
    await Server(live, machine.kernel, lambda line: None, guests=1).run(listener)


async def forever() -> None:
    from vkprotocol.effects import Mailbox

    await Mailbox("never").recv()


async def bare_echo(stream: UNIXSocketStream) -> None:
    """What anyio and msgpack cost by themselves."""
    unpacker, packer = msgpack.Unpacker(), msgpack.Packer()
    async for data in stream:
        unpacker.feed(data)
        replies = [
            packer.pack({"type": "reply", "seq": m["seq"], "lwp": m["lwp"], "value": 1})
            for m in unpacker
        ]
        await stream.send(b"".join(replies))


async def bare_client(path: Path, requests: int, window: int) -> float:
    stream = await anyio.connect_unix(path)
    unpacker, packer = msgpack.Unpacker(), msgpack.Packer()
    sent = got = 0
    began = time.perf_counter()
    while got < requests:
        words = []
        while sent < requests and sent - got < window:
            words.append(packer.pack({"type": "madvise", "lwp": 0, "seq": sent, "length": 1}))
            sent += 1
        if words:
            await stream.send(b"".join(words))
        unpacker.feed(await stream.receive())
        got += sum(1 for _ in unpacker)
    elapsed = time.perf_counter() - began
    await stream.aclose()
    return elapsed


async def guest_client(kind: str, path: Path, requests: int, window: int) -> float:
    """`window` virtual CPUs, each with one request under way."""
    live = Live(time_scale=1.0)
    session = GuestSession(live, await connect(path), hello("bench", window, memory=1 << 20))
    await session.greet()
    ports = [MailboxPort(session.requests[n], session.replies[n]) for n in range(window)]
    elapsed = [0.0]

    async def vcpu(n: int, va: int) -> None:
        for seq in range(1, requests // window + 1):
            await ports[n].call(request(kind, n, seq, va))

    async def boot() -> None:
        va = 0
        if kind == "host load":
            rw = PROT_READ | PROT_WRITE
            reply = await ports[0].call(Mmap(0, 4096, rw, MAP_SHARED, 3, 0, lwp=0, seq=0))
            va = reply.value
        began[0] = time.perf_counter()
        for n in range(window):
            live.spawn(f"vcpu{n}", vcpu(n, va))

    began = [0.0]
    live.spawn("boot", boot())
    async with anyio.create_task_group() as group:
        group.start_soon(session.run)
        with live.source():
            await live.run()
        elapsed[0] = time.perf_counter() - began[0]
        session.hang_up()
    return elapsed[0]


def request(kind: str, lwp: int, seq: int, va: int) -> AnyRequest:
    if kind == "stub":
        return Madvise(0, 1, 0, lwp=lwp, seq=seq)
    if kind == "host sysctl":
        return Sysctl("vm.vkernel_enable", lwp=lwp, seq=seq)
    return CpuOps((insn.load(va),), lwp=lwp, seq=seq)


def over_socket(kind: str, backend: str, requests: int, window: int) -> tuple[float, float]:
    """Requests a second, and microseconds of processor time for one, both processes together."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench"
        words = [sys.executable, __file__, "--serve", kind, "--backend", backend, str(path)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"

            async def main() -> float:
                if kind == "bare":
                    return await bare_client(path, requests, window)
                return await guest_client(kind, path, requests, window)

            began = time.process_time()
            elapsed = on_backend(backend, main)
            ours = time.process_time() - began
            theirs = float(server.stdout.readline())
    return requests / elapsed, (ours + theirs) / requests * 1e6


def report(result: dict[str, Any]) -> None:
    print(f"{'message':<22}{'bytes':>7}{'encode':>9}{'decode':>9}{'frame':>9}   msgpack (ns)")
    for name, row in result["messages"].items():
        ours = f"{row['bytes']:>7}{row['encode']:>9.0f}{row['decode']:>9.0f}{row['frame']:>9.0f}"
        print(f"{name:<22}{ours}{row['msgpack_encode']:>9.0f}{row['msgpack_decode']:>9.0f}")
    print(f"\nrequest and reply through two Connections, no stream: {result['sans_io']:.0f} ns")
    print(f"\n{'over a unix socket':<24}{'1 at a time':>24}{'8 at a time':>24}")
    for name, row in result["socket"].items():
        cells = (f"{rate:>12,.0f}/s {cpu:>6.0f} us" for rate, cpu in row.values())
        print(f"{name:<24}" + "".join(cells))
    print("us: processor time of both processes for a request and its reply")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000, help="for each line of the table")
    parser.add_argument("--messages", type=int, default=2000, help="calls in a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--backend", choices=BACKENDS, help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        on_backend(args.backend, lambda: serve(args.serve, args.path))
        return
    socket_rates = {
        f"{kind}, {backend}": {
            str(window): over_socket(kind, backend, args.requests, window) for window in (1, 8)
        }
        for kind in KINDS
        for backend in BACKENDS
    }
    result = {
        "messages": per_message(args.messages),
        "sans_io": sans_io(args.messages),
        "socket": socket_rates,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    if args.json:
        print(json.dumps(result))
    else:
        report(result)


if __name__ == "__main__":
    main()
