"""Port: the only way out of a virtual CPU. One request, one reply, in order."""

from __future__ import annotations

from typing import Protocol

from vkprotocol.effects import Mailbox
from vkprotocol.messages import AnyRequest, Goodbye, Reply

from vkguest.kern.errors import HostGone


class Port(Protocol):
    """What a vCPU needs of its host lwp."""

    async def call(self, request: AnyRequest) -> Reply:
        """Raises HostGone when there will be no answer."""
        ...


class MailboxPort:
    """The port of a guest in the host's own process: the two Mailboxes of its host lwp."""

    __slots__ = ("replies", "requests")

    def __init__(self, requests: Mailbox, replies: Mailbox) -> None:
        self.requests = requests
        self.replies = replies

    async def call(self, request: AnyRequest) -> Reply:
        await self.requests.send(request)
        reply: Reply | Goodbye = await self.replies.recv()
        if isinstance(reply, Goodbye):
            raise HostGone(reply.reason)
        assert reply.seq == request.seq
        return reply
