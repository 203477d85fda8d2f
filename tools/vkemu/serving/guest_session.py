"""The host, seen from one guest."""

from __future__ import annotations

from typing import Any

import anyio
from vkprotocol.connection import Role
from vkprotocol.effects import Mailbox
from vkprotocol.errno import errno_name
from vkprotocol.errors import RemoteProtocolError
from vkprotocol.messages import AnyMessage, Goodbye, Hello, HelloReply, Reply, Signal

from vkemu.executors.live import Live
from vkemu.serving.session import Mail, Outlet, Session, _farewell_text
from vkemu.serving.transport import VANISHED, Broken, Stream, UnixStream
from vkguest.kern.errors import HostGone
from vkguest.kernel import Vkernel


class GuestSession(Session):
    """A pair of Mailboxes for every virtual CPU.

    `patience`: seconds after which a host that owes an answer, and gives none, counts as gone. One
    that is stopped, or hangs, does not close its socket.
    """

    def __init__(
        self, live: Live, stream: Stream, hello: Hello, patience: float = float("inf")
    ) -> None:
        super().__init__(live, stream, Role.GUEST)
        self.hello = hello
        self.patience = patience
        self.requests = [Outlet(("requests", n), self._ask) for n in range(hello.vcpus)]
        self.replies = [Mailbox(("replies", n)) for n in range(hello.vcpus)]
        self.signals = Mailbox("signals")
        self.unanswered = 0  # requests under way
        self._heard = 0  # replies

    def _ask(self, request: Any) -> None:
        self.unanswered += 1
        self.say(request)

    async def greet(self, image: int | None = None) -> HelloReply:
        """Say Hello, with the descriptor of the memory image if there is one. HostGone if refused.

        The host may send on at once: what came with its answer is kept for `run`.
        """
        greet_seconds = 30.0  # for a host to answer a Hello
        try:
            with anyio.fail_after(min(greet_seconds, self.patience)):
                await self._greet(image)
        except (Broken, RemoteProtocolError) as error:
            raise HostGone(f"the host {error}") from None
        except TimeoutError:
            raise HostGone("the host does not answer") from None
        reply = self._early.pop(0)
        if isinstance(reply, Goodbye):
            raise HostGone(f"the host {_farewell_text(reply)}")
        assert isinstance(reply, HelloReply)
        if reply.errno:
            raise HostGone(f"the host refuses: {errno_name(reply.errno)}: {reply.reason}")
        return reply

    async def _greet(self, image: int | None) -> None:
        data = self.connection.send(self.hello)
        if image is None:
            await self.stream.send(data)
        else:
            assert isinstance(self.stream, UnixStream)
            await self.stream.send(data, [image])
        while not self._early:
            data = await self.stream.receive()
            self._early += self.connection.receive_bytes(data)
            if not data:
                raise Broken(VANISHED)

    async def run(self) -> None:
        """Deliver replies until `hang_up`; if the host ends first, stop the guest: HostGone."""
        async with anyio.create_task_group() as group:
            if self.patience < float("inf"):
                group.start_soon(self._watch)
            try:
                await self.converse(self._hear)
            finally:
                group.cancel_scope.cancel()
                await self.close()
        if not self.live.over:  # else it was us who hung up
            self.live.stop(HostGone(f"the host {self.reason or 'said goodbye'}"))

    async def _watch(self) -> None:
        """Two looks in a row at which something is owed and nothing has come since."""
        while True:
            heard, owed = self._heard, self.unanswered
            await anyio.sleep(self.patience)
            if owed and self.unanswered and self._heard == heard:
                self.live.stop(HostGone(f"the host has not answered for {self.patience:g} s"))
                self.hang_up("no answer")
                return

    def _hear(self, message: AnyMessage) -> Mail:
        if isinstance(message, Reply):
            self.unanswered -= 1
            self._heard += 1
            return self.replies[message.lwp], message
        if isinstance(message, Signal):
            return self.signals, message
        return None


async def run_guest(live: Live, session: GuestSession, vkernel: Vkernel) -> None:
    """A vkernel whose session has greeted, to its end. Raises what ends it, HostGone too."""
    vkernel.start()
    ended: list[Exception] = []
    async with anyio.create_task_group() as group:
        group.start_soon(session.run)
        with live.source(lambda: session.unanswered > 0):
            try:
                await live.run()
            except Exception as error:
                ended.append(error)
        session.hang_up()
    for end in ended:
        raise end
