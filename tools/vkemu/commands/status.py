"""`vkemu status`: how a host does."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import anyio
from vkprotocol.connection import Connection, Role
from vkprotocol.errno import errno_name
from vkprotocol.errors import RemoteProtocolError
from vkprotocol.messages import Goodbye, Status, StatusQuery

from vkemu.commands import reach
from vkemu.commands.reach import Reach
from vkemu.executors.backend import on_backend
from vkemu.serving.status import table
from vkemu.serving.transport import VANISHED, Broken
from vkemu.verdict import Status as Exit
from vkemu.verdict import UsageError, telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="SOCKET", help="of the host: a path, or tcp:HOST:PORT")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="all there is to know, as JSON")
    forms.add_argument("--openmetrics", action="store_true", help="counters, for Prometheus")
    reach.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    there = Reach("vkemu status", args.where, args)
    form = "openmetrics" if args.openmetrics else "json"
    try:
        content = on_backend("asyncio", lambda: ask(there, form))
    except OSError as error:
        raise UsageError(f"vkemu status: {error}") from None
    except (Broken, RemoteProtocolError, TimeoutError) as error:
        print(f"vkemu status: the host {error or 'does not answer'}", file=sys.stderr)
        return Exit.UNKNOWN
    with telling(Exit.PASS):
        if args.json or args.openmetrics:
            print(content.rstrip())
        else:
            print(table(json.loads(content)))
    return Exit.PASS


async def ask(there: Reach, form: str) -> str:
    """Raises OSError, Broken, RemoteProtocolError, TimeoutError."""
    answer_seconds = 10.0
    with anyio.fail_after(answer_seconds):
        stream = await there.connect()
        try:
            return await _ask(stream, StatusQuery(form=form, token=there.token))
        finally:
            await stream.aclose()


async def _ask(stream: Any, query: StatusQuery) -> str:
    end = Connection(Role.GUEST)
    await stream.send(end.send(query))
    parts = []
    while True:
        data = await stream.receive()
        for message in end.receive_bytes(data):
            if isinstance(message, Status):
                parts.append(message.part)
                if not message.more:
                    return b"".join(parts).decode()
            elif isinstance(message, Goodbye):
                raise Broken(f"said goodbye: {errno_name(message.errno)}: {message.reason}")
        if not data:
            raise Broken(VANISHED)
