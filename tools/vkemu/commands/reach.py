"""Where a host is, and what it takes to be let in: options of those that connect to one."""

from __future__ import annotations

import argparse
import ssl
from typing import Any

from vkemu.commands.arguments import path
from vkemu.serving.address import connect, parse_address, read_token
from vkemu.verdict import UsageError


def add_arguments(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    add("--token-file", type=path, metavar="FILE", help="what a host on TCP wants to be told")
    add("--tls-ca", type=path, metavar="FILE", help="TLS, and who may have signed its certificate")


class Reach:
    """UsageError when the options are not right."""

    def __init__(self, command: str, where: str, args: argparse.Namespace) -> None:
        try:
            # A path is the usual thing to write.
            known = where.startswith(("unix:", "tcp:"))
            self.address = parse_address(where if known else f"unix:{where}")
            self.token = "" if args.token_file is None else read_token(args.token_file).decode()
        except ValueError as error:
            raise UsageError(f"{command}: {error}") from None
        for option in ("--token-file", "--tls-ca"):
            if option in args.given and self.address.path is not None:
                raise UsageError(f"{command}: {option}, expected with tcp:HOST:PORT")
        self.context = self._context(args)

    def _context(self, args: argparse.Namespace) -> ssl.SSLContext | None:
        if args.tls_ca is None:
            return None
        try:
            return ssl.create_default_context(cafile=args.tls_ca)
        except (OSError, ssl.SSLError):
            raise UsageError(f"{args.tls_ca}: expected certificates") from None

    async def connect(self) -> Any:
        return await connect(self.address, self.context)
