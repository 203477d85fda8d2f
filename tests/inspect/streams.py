"""Event streams to test the log commands with: random but lawful ones, and the W07 story by hand.

`fleet` is what a long multi-guest run looks like: guests map, touch, edit and INVAL, the pageout
daemon launders and frees; every window it opens is closed, and it says how wide each was.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from vkemu.report.recording import SETUP, Step

Event = dict[str, Any]
BASE = datetime(2000, 1, 1, tzinfo=UTC)
PTE_RW = 0x103
HEADER = ("seq", "t", "ts", "run", "actor", "cpu", "guest", "event", "level")


def stamp(t: int) -> str:
    """The `ts` of virtual time `t`: nanoseconds, of which datetime only has the microseconds."""
    return f"{(BASE + timedelta(microseconds=t // 1000)):%Y-%m-%dT%H:%M:%S.%f}{t % 1000:03d}Z"


def line(event: Event) -> bytes:
    return orjson.dumps(event) + b"\n"


def write(path: Path, stream: Iterator[Event] | list[Event]) -> Path:
    with path.open("wb") as f:
        f.writelines(map(line, stream))
    return path


class Stream:
    """Numbers the events and gives each its header; `t` grows by `tick` an event."""

    def __init__(self, run: str = "test", tick: int = 250) -> None:
        self.run = run
        self.tick = tick
        self.seq = 0
        self.clocks: dict[str, dict[str, int]] = {}

    def __call__(
        self,
        actor: str,
        name: str,
        *,
        cpu: int | None = None,
        guest: str | None = None,
        after: str | None = None,
        **fields: Any,
    ) -> Event:
        """One event of `actor`; `after` names an actor whose last event happened before it."""
        clock = self.clocks.setdefault(actor, {})
        if after is not None:
            for other, count in self.clocks.get(after, {}).items():
                clock[other] = max(clock.get(other, 0), count)
        clock[actor] = clock.get(actor, 0) + 1
        t = self.seq * self.tick
        event = {
            "seq": self.seq, "t": t, "ts": stamp(t), "run": self.run, "actor": actor, "cpu": cpu,
            "guest": guest, "event": name, "level": "info", **fields,
        }  # fmt: skip
        event["vc"] = dict(clock)
        self.seq += 1
        return event


def fleet(n: int, seed: int = 1, guests: int = 4) -> Iterator[Event]:
    """About `n` events of `guests` guests under a pageout daemon."""
    rng = random.Random(seed)
    emit = Stream(run=f"fleet-{seed}")
    emit_n = 0
    while emit_n < n:
        guest = rng.randrange(guests)
        story = rng.choice((touch, touch, touch, edit, launder))
        for event in story(emit, rng, guest):
            yield event
            emit_n += 1


def touch(emit: Stream, rng: random.Random, guest: int) -> Iterator[Event]:
    """A guest touches a page: fault, walk, enter; then some loads and stores."""
    who: dict[str, Any] = {"cpu": guest, "guest": f"g{guest}"}
    va, pfn, table = rng.randrange(64) << 12, rng.randrange(256), 512 + guest
    worker = f"fault/{guest}"
    vpte = pfn << 12 | 7
    yield emit(worker, "fault.begin", **who, map=guest, va=va, type="write")
    yield emit(worker, "ilock.enter", **who, map=guest, start=va, end=va + 4096)
    yield emit(worker, "page.busy", **who, pfn=table, kind="hard")
    yield emit(worker, "vpte.read", **who, pfn=table, idx=va >> 12, value=vpte, vshift=0)
    yield emit(worker, "vpte.am", **who, pfn=table, idx=va >> 12, old=vpte, new=vpte | 0x60)
    yield emit(worker, "page.unbusy", **who, pfn=table, kind="hard")
    new = pfn << 12 | PTE_RW
    yield emit(worker, "pte.write", **who, pmap=guest, va=va, old=0, new=new, why="enter")
    yield emit(worker, "ilock.exit", **who, map=guest, start=va, end=va + 4096)
    yield emit(worker, "fault.end", **who, map=guest, va=va, result="ok")
    vcpu = f"vcpu0@g{guest}"
    yield emit(vcpu, "tlb.fill", **who, after=worker, pmap=guest, va=va, pfn=pfn, bits=PTE_RW)
    for i in range(rng.randrange(4, 16)):
        op = "mem.store" if i % 3 == 0 else "mem.load"
        yield emit(vcpu, op, **who, pmap=guest, va=va, pfn=pfn, idx=i, value=rng.randrange(1 << 32))


def edit(emit: Stream, rng: random.Random, guest: int) -> Iterator[Event]:
    """A guest takes a page away: swap the VPTE, INVAL, the host flushes."""
    who: dict[str, Any] = {"cpu": guest, "guest": f"g{guest}"}
    va, table = rng.randrange(64) << 12, 512 + guest
    vcpu = f"vcpu0@g{guest}"
    dmap = 0x8000_0000 + (table << 12)
    yield emit(vcpu, "mem.store", **who, pmap=99, va=dmap, pfn=table, idx=va >> 12, value=0)
    for _ in range(rng.randrange(6)):
        yield emit(vcpu, "mem.load", **who, pmap=99, va=dmap, pfn=table, idx=1, value=0)
    yield emit(vcpu, "inval.begin", **who, pmap=guest, start=va, end=va + 4096)
    yield emit(vcpu, "ilock.enter", **who, map=guest, start=va, end=va + 4096)
    old = rng.randrange(256) << 12 | PTE_RW
    yield emit(vcpu, "pte.write", **who, pmap=guest, va=va, old=old, new=0, why="inval")
    yield emit(vcpu, "ipi.send", **who, pmap=guest, va=va)
    yield emit(f"ipi/{guest}", "tlb.flush", **who, after=vcpu, va=va)
    yield emit(f"ipi/{guest}", "ipi.ack", **who)
    yield emit(vcpu, "ilock.exit", **who, after=f"ipi/{guest}", map=guest, start=va, end=va + 4096)
    yield emit(vcpu, "inval.end", **who, pmap=guest, start=va, end=va + 4096)


def launder(emit: Stream, rng: random.Random, _guest: int) -> Iterator[Event]:
    """The pageout daemon takes a page from its mapping to the free queue and gives it away."""
    pfn, gen = rng.randrange(256), rng.randrange(1000)
    yield emit("pagedaemon", "pageout.page", pfn=pfn, action="deactivate")
    yield emit("pagedaemon", "page.busy", pfn=pfn, kind="hard")
    new: dict[str, Any] = {
        "pmap": 99,
        "va": 0x8000_0000 + (pfn << 12),
        "old": pfn << 12 | PTE_RW,
        "new": 0,
    }
    yield emit("pagedaemon", "pte.write", **new, why="remove_all")
    yield emit("pagedaemon", "page.flags", pfn=pfn, set=0, clear=0x80)
    yield emit("pagedaemon", "page.queue", pfn=pfn, old="inactive", new="cache")
    yield emit("pagedaemon", "page.free", pfn=pfn, gen=gen)
    yield emit("pagedaemon", "page.unbusy", pfn=pfn, kind="hard")
    yield emit(
        "fault/0", "page.alloc", after="pagedaemon", pfn=pfn, gen=gen + 1, object="o1", pindex=pfn
    )


def steps_from_events(events: list[Event]) -> list[Step]:
    """Steps as far as a log without a recording tells them: actor, time, clock and events."""
    steps = [Step(0, -1, SETUP)]
    tids: dict[str, int] = {}
    last: object = None
    for event in events:
        number = event.get("step")
        key = event["seq"] if number is None else number
        if number == 0:
            steps[0].events.append(event)
            continue
        if key != last:
            actor = event["actor"]
            tid = tids.setdefault(actor, len(tids))
            step = Step(len(steps), tid, actor, t=event["t"], clock=event.get("vc") or {})
            steps.append(step)
            last = key
        steps[-1].events.append(event)
    return steps
