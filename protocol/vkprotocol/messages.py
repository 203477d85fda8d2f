"""What host and guest say to each other: frozen Structs, tagged by "type", maps on the wire.

A guest says Hello, is answered HelloReply, and from then on each of its virtual CPUs - a host
lwp - sends requests and gets one Reply for each, in order. A Signal comes unasked. Either side may
say Goodbye. Bounds here are those of the *wire*; what a system call makes of a value that fits -
EINVAL, mostly - is the host kernel's business, so a negative behaviour or a wrapping length can be
said. Arguments of a call are positional in the order of its C prototype; lwp and seq are keywords.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from vkprotocol import limits
from vkprotocol.insn import MemOp, Trapframe, Word
from vkprotocol.vkernel import NSIG

LwpId: TypeAlias = Annotated[int, Meta(ge=0, lt=limits.VCPUS)]
Seq: TypeAlias = Annotated[int, Meta(ge=0, le=limits.U32)]
Name: TypeAlias = Annotated[str, Meta(max_length=limits.NAME_CHARS)]
Text: TypeAlias = Annotated[str, Meta(max_length=limits.TEXT_CHARS)]
ErrnoValue: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
Int: TypeAlias = int  # signed, 64 bits
IoBytes: TypeAlias = Annotated[bytes, Meta(max_length=limits.IO_BYTES)]
VmspaceId: TypeAlias = Word  # opaque: the guest's address of its own vmspace

MEMIMAGE_FD = 3  # the memory image's descriptor in the vkernel process
DISK_FD = 4  # of its disk, if it has one


class Message(
    Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="type",
):
    """Anything that crosses the wire. Immutable, so no garbage cycles: `gc=False` is safe."""


class Credentials(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Who the vkernel process runs as; over a unix socket the host asks the kernel instead."""

    pid: Annotated[int, Meta(ge=0, le=limits.U32)]
    uid: Annotated[int, Meta(ge=0, le=limits.U32)]
    gid: Annotated[int, Meta(ge=0, le=limits.U32)]


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """The guest's first words. `image`: a descriptor of the memory image comes with them."""

    schema: Annotated[int, Meta(ge=0, le=limits.U32)]
    name: Name
    credentials: Credentials
    memory: Annotated[int, Meta(gt=0, le=limits.RAM_BYTES, multiple_of=4096)]
    vcpus: Annotated[int, Meta(ge=1, le=limits.VCPUS)]
    image: bool = False
    token: Annotated[str, Meta(max_length=limits.TOKEN_CHARS)] = ""  # of a host that asks for one


class HelloReply(Message, frozen=True, kw_only=True, tag="hello_reply"):
    """errno 0: welcome, and the image is open as `fd`. Else refused, and `reason` says why."""

    schema: Annotated[int, Meta(ge=0, le=limits.U32)]
    name: Name
    errno: ErrnoValue = 0
    reason: Text = ""
    proc: Annotated[int, Meta(ge=0, le=limits.U32)] = 0
    fd: Annotated[int, Meta(ge=0, le=1023)] = MEMIMAGE_FD


class StatusQuery(Message, frozen=True, kw_only=True, tag="status_query"):
    """In place of a Hello: how does the host do? `form`: json, or openmetrics."""

    form: Annotated[str, Meta(max_length=limits.NAME_CHARS)] = "json"
    token: Annotated[str, Meta(max_length=limits.TOKEN_CHARS)] = ""


class Status(Message, frozen=True, kw_only=True, tag="status"):
    """The answer, a text in the form that was asked for. `more`: another part follows."""

    part: Annotated[bytes, Meta(max_length=limits.IO_BYTES)]
    more: bool = False


class Goodbye(Message, frozen=True, tag="goodbye"):
    """The last message of whoever says it. errno 0 is an ordinary end."""

    errno: ErrnoValue = 0
    reason: Text = ""


class Signal(Message, frozen=True, tag="signal"):
    """Host to guest, unasked: signal `signo` was posted to `lwp` from outside the guest."""

    lwp: LwpId
    signo: Annotated[int, Meta(ge=1, le=NSIG)]


class Reply(Message, frozen=True, kw_only=True, tag="reply"):
    """The answer to request `seq` of `lwp`. errno 0 is success; `value` is the call's result.

    CpuOps: `values` of the operations done; on EFAULT `value` is the index of the one that failed.
    VmspaceCtl: `frame` as copied out. VmspacePread: `buf`.
    """

    lwp: LwpId
    seq: Seq
    errno: ErrnoValue = 0
    value: Int = 0
    values: Annotated[tuple[Word, ...], Meta(max_length=limits.OPS_PER_BATCH)] = ()
    frame: Trapframe | None = None
    buf: IoBytes = b""


class Request(Message, frozen=True, kw_only=True):
    """A system call, or a batch of memory operations, of one lwp. `seq` comes back in the Reply."""

    lwp: LwpId
    seq: Seq


class VmspaceCreate(Request, frozen=True, tag="vmspace_create"):
    id: VmspaceId
    kind: Int = 0  # the `type` argument, which nobody looks at
    data: Word = 0


class VmspaceDestroy(Request, frozen=True, tag="vmspace_destroy"):
    id: VmspaceId


class VmspaceCtl(Request, frozen=True, tag="vmspace_ctl"):
    """cmd VMSPACE_CTL_RUN enters `frame` in vmspace `id`; without a frame, EFAULT.

    With `tframe` the frame is where that points to, in the vkernel's memory (vkprotocol.frame):
    copied in from there and out to there, its TLS from `vframe`; `frame` has then only what is in
    no memory, and the Reply has none.
    """

    id: VmspaceId
    cmd: Int
    frame: Trapframe | None = None
    tframe: Word | None = None
    vframe: Word = 0


class VmspaceMmap(Request, frozen=True, tag="vmspace_mmap"):
    id: VmspaceId
    addr: Word
    length: Word
    prot: Int
    flags: Int
    fd: Int
    offset: Int


class VmspaceMunmap(Request, frozen=True, tag="vmspace_munmap"):
    id: VmspaceId
    addr: Word
    length: Word


class VmspaceMcontrol(Request, frozen=True, tag="vmspace_mcontrol"):
    id: VmspaceId
    addr: Word
    length: Word
    behav: Int
    value: Word = 0


class VmspacePread(Request, frozen=True, tag="vmspace_pread"):
    id: VmspaceId
    nbyte: Word
    flags: Int = 0
    offset: Int = 0


class VmspacePwrite(Request, frozen=True, tag="vmspace_pwrite"):
    id: VmspaceId
    buf: IoBytes
    flags: Int = 0
    offset: Int = 0


class Mmap(Request, frozen=True, tag="mmap"):
    """`value` of the Reply is the address."""

    addr: Word
    length: Word
    prot: Int
    flags: Int
    fd: Int
    offset: Int


class Pread(Request, frozen=True, tag="pread"):
    """pread(2) of a page of an open file into memory at `addr`, both page aligned: how a vkernel
    reads its disk. `value` of the Reply is the bytes read."""

    fd: Int
    addr: Word
    offset: Int


class Pwrite(Request, frozen=True, tag="pwrite"):
    """pwrite(2) of the page at `addr` to an open file, both page aligned: how a vkernel writes its
    disk. `value` of the Reply is the bytes written."""

    fd: Int
    addr: Word
    offset: Int


class Munmap(Request, frozen=True, tag="munmap"):
    addr: Word
    length: Word


class Mcontrol(Request, frozen=True, tag="mcontrol"):
    addr: Word
    length: Word
    behav: Int
    value: Word = 0


class Madvise(Request, frozen=True, tag="madvise"):
    addr: Word
    length: Word
    behav: Int


class Msync(Request, frozen=True, tag="msync"):
    addr: Word
    length: Word
    flags: Int


class Sysctl(Request, frozen=True, tag="sysctl"):
    """Read `name`, after setting it to `new` when given. `value` of the Reply is what was there."""

    name: Annotated[str, Meta(max_length=limits.SYSCTL_CHARS)]
    new: Int | None = None


class Kill(Request, frozen=True, tag="kill"):
    """Post `signo` to lwp `target` of the same guest; it leaves RUN with EINTR."""

    target: LwpId
    signo: Int


class Exit(Request, frozen=True, tag="exit"):
    """The lwp is done; the last one to say so ends the process (vkernel_exit)."""

    status: Int = 0


class CpuOps(Request, frozen=True, tag="cpu_ops"):
    """The guest kernel's own loads and stores, one after the other on this lwp's CPU.

    Not a system call: the host kernel sees only the page faults they take.
    """

    ops: Annotated[tuple[MemOp, ...], Meta(max_length=limits.OPS_PER_BATCH)]


AnyRequest: TypeAlias = (
    VmspaceCreate
    | VmspaceDestroy
    | VmspaceCtl
    | VmspaceMmap
    | VmspaceMunmap
    | VmspaceMcontrol
    | VmspacePread
    | VmspacePwrite
    | Mmap
    | Pread
    | Pwrite
    | Munmap
    | Mcontrol
    | Madvise
    | Msync
    | Sysctl
    | Kill
    | Exit
    | CpuOps
)
ToHost: TypeAlias = Hello | StatusQuery | Goodbye | AnyRequest
ToGuest: TypeAlias = HelloReply | Status | Goodbye | Signal | Reply
AnyMessage: TypeAlias = ToHost | HelloReply | Status | Signal | Reply
