"""Encoding and decoding: both ways, against an independent codec, and against anything at all."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkprotocol import limits
from vkprotocol.codec import decode, encode, frame
from vkprotocol.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from vkprotocol.insn import NREGS, Insn, Mem, MemOp, Op, Trapframe, load, syscall
from vkprotocol.messages import (
    CpuOps,
    Goodbye,
    Kill,
    Reply,
    Sysctl,
    ToGuest,
    ToHost,
    VmspaceCtl,
    VmspacePwrite,
)

from tests.protocol.examples import EXAMPLES
from tests.protocol.strategies import MESSAGES, bounded_fields, messages


@pytest.mark.slow
@given(messages())
def test_what_is_encoded_decodes_to_the_same(message: Any) -> None:
    assert decode(encode(message)) == message
    assert frame(message)[5:] == encode(message)


@pytest.mark.slow
@given(messages())
def test_msgpack_reads_what_msgspec_writes(message: Any) -> None:
    fields = msgpack.unpackb(encode(message))

    assert decode(msgpack.packb(fields)) == message
    assert fields == {"type": fields["type"], **_written(message)}


def _written(message: Any) -> dict[str, Any]:
    """The fields that are not at their default, as plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    return {name: _lists(value) for name, value in plain.items() if name != "type"}


def _lists(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return value


@pytest.mark.slow
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    _decoded_or_refused(data)


@pytest.mark.slow
@given(messages(), st.data())
def test_any_change_of_a_message_is_a_message_or_a_value_error(message: Any, data: Any) -> None:
    payload = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    _decoded_or_refused(bytes(payload))
    _decoded_or_refused(bytes(payload[: data.draw(st.integers(0, len(payload)))]))


_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), limits.U64) | st.text() | st.binary()
    | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@pytest.mark.slow
@given(messages(), st.data())
def test_wrong_types_and_unknown_fields_are_refused(message: Any, data: Any) -> None:
    fields = msgpack.unpackb(encode(message))
    name = data.draw(st.sampled_from([*fields, "an unknown field"]))
    fields[name] = data.draw(_plain)
    _decoded_or_refused(msgpack.packb(fields))


def _decoded_or_refused(payload: bytes) -> None:
    for union in (ToHost, ToGuest):
        try:
            message = decode(payload, union)
        except ValueError:
            continue
        assert type(message) in MESSAGES


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "truncated"),
        (b"\xc1", "malformed"),
        (b"\x80", "missing required field `type`"),
        (msgpack.packb({"type": "reboot"}), "Invalid value 'reboot' - at `$.type`"),
        (msgpack.packb({"type": 1}), "Expected `str`, got `int` - at `$.type`"),
        (msgpack.packb([1, 2]), "got `array`"),
        (msgpack.packb({"type": "exit", "lwp": 0, "seq": 0, "x": 0}), "unknown field `x`"),
        (msgpack.packb({"type": "exit", "lwp": 0}), "missing required field `seq`"),
        (msgpack.packb({"type": "exit", "lwp": 0, "seq": 0.5}), "Expected `int`, got `float`"),
        (b"\x82\xa4type\xa7goodbye\xa6reason\xa1\xff", "UTF-8"),
        (b"\x82\xa1x" + b"\x91" * 100_000, "nested too deep"),
        (b"\xdf\xff\xff\xff\xff", "truncated"),
        (b"\x82\xa4type\xa7cpu_ops\xa3ops\xdd\xff\xff\xff\xff", "length <= 4096"),
        (b"\x82\xa4type\xa7goodbye\xa6reason\xdb\xff\xff\xff\xff", "truncated"),
        (encode(Goodbye()) + b"\x00", "trailing"),
    ],
)
def test_what_is_wrong_is_said(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("$", r"\$")):
        decode(payload)


def test_a_request_is_no_message_to_a_guest_nor_a_reply_one_to_a_host() -> None:
    with pytest.raises(ValueError, match="Invalid value 'kill'"):
        decode(encode(EXAMPLES["kill"]), ToGuest)
    with pytest.raises(ValueError, match="Invalid value 'reply'"):
        decode(encode(EXAMPLES["reply"]), ToHost)


@pytest.mark.parametrize(("kind", "field", "bound", "value"), bounded_fields())
def test_integer_bounds_on_both_sides(kind: Any, field: str, bound: str, value: int) -> None:
    example = next(message for message in EXAMPLES.values() if type(message) is kind)
    fields = msgpack.unpackb(encode(example))
    inside = {"ge": value, "gt": value + 1, "le": value, "lt": value - 1}[bound]
    outside = inside - 1 if bound in ("ge", "gt") else inside + 1
    if (kind.__name__, field) == ("Hello", "memory"):
        inside, outside = (4096, 0) if bound == "gt" else (value, value + 4096)

    assert getattr(decode(msgpack.packb({**fields, field: inside})), field) == inside
    with pytest.raises(ValueError, match=rf"\$\.{field}"):
        decode(msgpack.packb({**fields, field: outside}))


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda n: Goodbye(0, "x" * n), limits.TEXT_CHARS),
        (lambda n: Sysctl("x" * n, lwp=0, seq=0), limits.SYSCTL_CHARS),
        (lambda n: VmspacePwrite(1, b"x" * n, lwp=0, seq=0), limits.IO_BYTES),
        (lambda n: Reply(lwp=0, seq=0, buf=b"x" * n), limits.IO_BYTES),
        (lambda n: Reply(lwp=0, seq=0, values=(0,) * n), limits.OPS_PER_BATCH),
        (lambda n: CpuOps((load(8),) * n, lwp=0, seq=0), limits.OPS_PER_BATCH),
        (lambda n: _run(Trapframe(text=(syscall(),) * n)), limits.TEXT_INSNS),
        (lambda n: _run(Trapframe(pc=n)), limits.U64),
        (lambda n: _run(Trapframe(budget=n)), limits.RUN_BUDGET),
        (lambda n: _run(Trapframe(regs=(0,) * n)), NREGS),
        (lambda n: _run(Trapframe(text=(Insn(Op.LD, n),))), NREGS - 1),
    ],
)
def test_limits_on_both_sides(make: Any, limit: int) -> None:
    assert decode(frame(make(limit))[5:]) == make(limit)
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        frame(make(limit + 1))


def _run(trapframe: Trapframe) -> VmspaceCtl:
    return VmspaceCtl(1, 1, trapframe, lwp=0, seq=0)


def test_a_frame_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(encode(EXAMPLES["cpu_ops"]))
    monkeypatch.setattr(limits, "FRAME_BYTES", size)

    assert len(frame(EXAMPLES["cpu_ops"])) == size + 5
    monkeypatch.setattr(limits, "FRAME_BYTES", size - 1)
    with pytest.raises(LocalProtocolError, match=rf"CpuOps takes {size} bytes"):
        frame(EXAMPLES["cpu_ops"])


def test_the_largest_messages_the_bounds_allow_fit_in_a_frame() -> None:
    word = limits.U64
    ops = CpuOps(
        (MemOp(Mem.COPY, word, word, word),) * limits.OPS_PER_BATCH, lwp=63, seq=limits.U32
    )
    text = (Insn(Op.LI, 15, 15, 15, word),) * limits.TEXT_INSNS
    run = _run(Trapframe(text=text, regs=(word,) * 16))
    values = Reply(lwp=0, seq=0, values=(word,) * limits.OPS_PER_BATCH, buf=b"x" * limits.IO_BYTES)

    for largest in (ops, run, values):
        assert len(frame(largest)) <= limits.FRAME_BYTES + 5


@pytest.mark.parametrize(
    "message",
    [
        Kill(0, 1 << 64, lwp=0, seq=0),
        Kill(0, -(1 << 63) - 1, lwp=0, seq=0),
        Kill("1", 1, lwp=0, seq=0),  # type: ignore[arg-type]
        Kill(0, 1, lwp=-1, seq=0),
        Goodbye(0, object()),  # type: ignore[arg-type]
        Goodbye(0, "\ud800"),
    ],
)
def test_what_a_peer_would_refuse_is_not_sent(message: Any) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        frame(message)


def test_a_protocol_error_is_somebodys() -> None:
    with pytest.raises(TypeError, match="LocalProtocolError"):
        ProtocolError("whose?")
    assert issubclass(LocalProtocolError, ProtocolError)
    error = RemoteProtocolError(5, "Hello", "Reply")
    assert str(error) == "byte 5: expected Hello, got Reply"
