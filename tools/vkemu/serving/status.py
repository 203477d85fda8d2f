"""How a host does: for people, for programs (JSON) and for Prometheus (OpenMetrics)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector
from vkprotocol.errno import Errno

from vkemu.serving.containment import Contained, Containment
from vkemu.serving.limits import Limits
from vkemu.serving.session import Refused

if TYPE_CHECKING:
    from vkemu.serving.host_session import HostSession

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Served(Contained, Protocol):
    """What is told of a server."""

    name: str
    draining: bool
    served: int
    limits: Limits
    containment: Containment


def status_text(server: Served, form: str) -> bytes:
    """In one of FORMS, else Refused."""
    forms = ("json", "openmetrics")
    if form not in forms:
        raise Refused(Errno.EINVAL, f"status as {form!r}, expected {' or '.join(forms)}")
    found = status(server)
    return openmetrics(found) if form == "openmetrics" else msgspec.json.encode(found)


def status(server: Served) -> dict[str, Any]:
    now = anyio.current_time()
    kernel, live = server.kernel, server.live
    greeted = [session for session in server.sessions if session.greeted]
    violations_told = 16
    return {
        "name": server.name,
        "pid": os.getpid(),
        "policy": kernel.policy,
        "draining": server.draining,
        "guests": [guest_status(session, now) for session in greeted],
        "peers": len(server.sessions) - len(greeted),
        "processes": sum(not proc.zombie for proc in kernel.procs),
        "threads": len(live.threads),
        "steps": live.steps,
        "virtual_ns": live.clock,
        "served": server.served,
        "counts": dict(sorted(server.counts.items())),
        "violations": server.containment.violations[:violations_told],
        "limits": msgspec.structs.asdict(server.limits),
        "resident_bytes": resident_bytes(),
        "sysctls": {name: node.get() for name, node in sorted(kernel.vmmeter.sysctls.items())},
    }


def guest_status(session: HostSession, now: float) -> dict[str, Any]:
    proc: Any = session.guest
    vkp = proc.p_vkernel.state
    spaces = [proc.p_vmspace]
    if vkp is not None:
        spaces += [ve.vmspace for _, ve in sorted(vkp.root.items())]
    return {
        "name": proc.name,
        "pid": proc.pid,
        "vcpus": len(proc.lwps),
        "connected_s": round(now - session.since, 3),
        "cpu_s": round(session.account.used / 1e9, 6) if session.account else 0.0,
        "requests": session.requests,
        "outstanding": session.connection.unanswered,
        "unsent_bytes": session.unsent,
        "vmspaces": len(spaces) - 1,
        "entries": sum(len(space.vm_map.entries) for space in spaces),
        "resident_pages": sum(space.pmap.resident_count for space in spaces),
    }


def resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - no path is wanted
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


# Key of a status -> (metric, what it is).
GAUGES: Final = {
    "peers": ("vkemu_peers", "Peers that have not said Hello"),
    "processes": ("vkemu_processes", "Host processes of guests"),
    "threads": ("vkemu_threads", "Kernel threads"),
    "resident_bytes": ("vkemu_resident_bytes", "Resident memory of the host"),
}
OF_GUESTS: Final = {
    "outstanding": "Requests not answered",
    "unsent_bytes": "Bytes the guest has not read",
    "vmspaces": "vmspaces",
    "entries": "Map entries",
    "resident_pages": "Pages mapped",
}


class _Status(Collector):
    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def collect(self) -> Iterator[Metric]:
        found = self.found
        for key, (name, meaning) in GAUGES.items():
            yield GaugeMetricFamily(name, meaning, value=found[key])
        yield GaugeMetricFamily("vkemu_guests", "Guests", value=len(found["guests"]))
        yield CounterMetricFamily("vkemu_steps", "Steps of kernel threads", value=found["steps"])
        happened = CounterMetricFamily("vkemu_happened", "What came to pass", labels=["what"])
        for what, count in found["counts"].items():
            happened.add_metric([what], count)
        yield happened
        sysctls = GaugeMetricFamily("vkemu_sysctl", "Counters of the host's VM", labels=["name"])
        for name, value in found["sysctls"].items():
            sysctls.add_metric([name], value)
        yield sysctls
        for key, meaning in OF_GUESTS.items():
            yield self._of_guests(GaugeMetricFamily, f"vkemu_guest_{key}", meaning, key)
        cpu = "Processor time of its threads"
        yield self._of_guests(CounterMetricFamily, "vkemu_guest_cpu_seconds", cpu, "cpu_s")
        asked = "Requests"
        yield self._of_guests(CounterMetricFamily, "vkemu_guest_requests", asked, "requests")

    def _of_guests(self, family: Callable[..., Any], name: str, meaning: str, key: str) -> Metric:
        metric = family(name, meaning, labels=["guest"])
        for guest in self.found["guests"]:
            metric.add_metric([guest["name"]], guest[key])
        found: Metric = metric
        return found


def openmetrics(found: dict[str, Any]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Status(found))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def table(found: dict[str, Any]) -> str:
    """For people."""
    counts = " ".join(f"{what} {count}" for what, count in found["counts"].items())
    lines = [
        f"{found['name']} {found['pid']}, policy {found['policy']}"
        + (", draining" if found["draining"] else ""),
        f"{len(found['guests'])} guests, {found['peers']} peers, {found['served']} served",
        f"{found['steps']:,} steps, {found['resident_bytes'] >> 20} MiB resident",
        counts or "nothing happened yet",
        *found["violations"],
    ]
    if found["guests"]:
        heads = ("name", "pid", "vcpus", "cpu_s", "requests", "outstanding", "vmspaces", "entries")
        rows = [heads, *([str(guest[head]) for head in heads] for guest in found["guests"])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
