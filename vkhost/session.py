"""Session: a guest's conversation on the host, without I/O and without a loop.

Messages come in from whatever carries them - a Connection over a stream, or a guest of the same
process - and go out the same way. Between, each lwp's two Mailboxes. The order of replies is that
of the requests of one lwp; between lwps there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkhost.lwp import Lwp, Proc, lwpsignal
from vkhost.proc import killproc, proc_create, proc_start
from vkprotocol.errno import Errno
from vkprotocol.limits import SCHEMA
from vkprotocol.messages import Goodbye, Hello, HelloReply, Reply, Request, ToHost

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vnode import Vnode

HOST_NAME = "vkemu"


class Session:
    """One guest. `proc` is None until its Hello has been accepted."""

    __slots__ = ("kernel", "lwps", "proc")

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.proc: Proc | None = None
        self.lwps: list[Lwp] = []

    def hello(self, hello: Hello, image: Vnode | None) -> HelloReply:
        """Make the process, or say why not. `image`: what the guest maps as its memory."""
        reason = self._refusal(hello, image)
        if reason is None:
            self.proc = proc_create(self.kernel, hello.name, image, hello.vcpus)
            if self.proc is None:
                reason = Errno.EPROCLIM, f"no {hello.vcpus} idle CPUs"
        if reason is not None:
            errno, text = reason
            return HelloReply(schema=SCHEMA, name=HOST_NAME, errno=int(errno), reason=text)
        assert self.proc is not None
        self.lwps = list(self.proc.lwps)
        proc_start(self.proc)
        return HelloReply(schema=SCHEMA, name=HOST_NAME, proc=self.proc.pid)

    def _refusal(self, hello: Hello, image: Vnode | None) -> tuple[Errno, str] | None:
        if hello.schema != SCHEMA:
            return Errno.EPROTONOSUPPORT, f"schema {hello.schema}, this host speaks {SCHEMA}"
        if self.proc is not None:
            return Errno.EISCONN, "one Hello a connection"
        if image is None:
            return Errno.EBADF, "no memory image came with the Hello"
        if image.size < hello.memory:
            return Errno.EINVAL, f"the image has {image.size} bytes, not {hello.memory}"
        return None

    async def receive(self, message: ToHost) -> None:
        """A request goes to its lwp; a Goodbye is the end of the process."""
        if isinstance(message, Goodbye):
            if self.proc is not None:
                await killproc(self.proc)
        elif isinstance(message, Request):
            await self.lwps[message.lwp].requests.send(message)

    async def next_reply(self, tid: int) -> Reply | Goodbye:
        """The next thing to tell the guest's CPU `tid`. After a Goodbye there is nothing more."""
        reply: Reply | Goodbye = await self.lwps[tid].replies.recv()
        return reply

    async def interrupt(self, tid: int, signo: int) -> None:
        """A signal from outside the guest."""
        await lwpsignal(self.lwps[tid], signo)
