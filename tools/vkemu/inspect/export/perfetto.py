"""Perfetto's own format, a TrackEvent protobuf, through the `perfetto` package.

One track an actor, with a child track for every lock it takes; shootdowns are flows from the IPI
to its acknowledgement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from vkemu.record.narrate import Event, narrate, own_fields
from vkemu.record.slices import Mark, marks
from vkemu.verdict import UsageError


def export(events: Iterable[Event], out: IO[bytes]) -> None:
    try:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
    except ImportError:
        raise UsageError(
            "vkemu log export: perfetto needs `pip install 'vkemu[perfetto]'`;"
            " --format chrome opens in the same viewer"
        ) from None
    trace = _Trace(StreamingTraceProtoBuilder(out), TrackEvent)
    for mark in marks(events):
        trace.add(mark)


class _Trace:
    """Tracks that exist, and flows under way."""

    def __init__(self, builder: Any, kinds: Any) -> None:
        self.builder = builder
        self.types = {
            "begin": kinds.TYPE_SLICE_BEGIN,
            "end": kinds.TYPE_SLICE_END,
            "instant": kinds.TYPE_INSTANT,
        }
        self.tracks: dict[tuple[str, str | None], int] = {}
        self.flows: dict[Any, int] = {}

    def track(self, actor: str, lock: str | None) -> int:
        key = actor, lock
        if key in self.tracks:
            return self.tracks[key]
        parent = None if lock is None else self.track(actor, None)
        uuid = self.tracks[key] = len(self.tracks) + 1
        packet = self.builder.create_packet()
        packet.track_descriptor.uuid = uuid
        packet.track_descriptor.name = actor if lock is None else lock
        if parent is not None:
            packet.track_descriptor.parent_uuid = parent
        self.builder.write_packet(packet)
        return uuid

    def add(self, mark: Mark) -> None:
        event = mark.event
        lock = mark.lock if mark.phase != "instant" else None
        track = self.track(event["actor"], lock)
        packet = self.builder.create_packet()
        event_ns = 1000
        packet.timestamp = event["seq"] * event_ns
        packet.trusted_packet_sequence_id = 1
        entry = packet.track_event
        entry.type = self.types[mark.phase]
        entry.track_uuid = track
        if mark.phase != "end":
            entry.name = lock or event["event"].removesuffix(".begin")
            entry.categories.append(event["event"].partition(".")[0])
        for name, value in {"text": narrate(event), "t": event["t"], **own_fields(event)}.items():
            self._annotate(entry.debug_annotations.add(), name, value)
        flow = self._flow(event)
        if flow is not None:
            entry.flow_ids.append(flow)
        self.builder.write_packet(packet)

    def _annotate(self, annotation: Any, name: str, value: Any) -> None:
        annotation.name = name
        if isinstance(value, bool):
            annotation.bool_value = value
        elif isinstance(value, int) and value < 0:
            annotation.int_value = value
        elif isinstance(value, int):
            annotation.uint_value = value
        else:
            annotation.string_value = str(value)

    def _flow(self, event: Event) -> int | None:
        """An IPI and its acknowledgement, by the CPU it goes to."""
        if event["event"] == "ipi.send":
            self.flows[event["cpu"]] = event["seq"] + 1
        if event["event"] in {"ipi.send", "ipi.ack"}:
            return self.flows.get(event["cpu"])
        return None
