"""Names and numbers of hosts, as the network in memory has them."""

from __future__ import annotations

import socket
from typing import Any

from vkemu.worlds.network import address_of


def resolved(
    host: Any,
    port: Any,
    family: int = 0,
    type: int = 0,  # noqa: A002 - getaddrinfo's name
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[Any, Any, int, str, tuple[Any, ...]]]:
    """As `socket.getaddrinfo`. Whatever name a program has for a host, there is one."""
    name = host.decode() if isinstance(host, bytes) else host
    number = address_of(name) if name or flags & socket.AI_PASSIVE else "127.0.0.1"
    if flags & socket.AI_NUMERICHOST and name and number != name:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = socket.AF_INET6 if ":" in number else socket.AF_INET
    if family not in {0, found}:
        raise socket.gaierror(socket.EAI_ADDRFAMILY, "Address family not supported")
    which = port.decode() if isinstance(port, bytes) else port or 0
    if isinstance(which, str):
        known = {"http": 80, "https": 443, "": 0}
        which = known[which] if which in known else int(which)
    address = (number, which, 0, 0) if found == socket.AF_INET6 else (number, which)
    kind = socket.SocketKind(type or socket.SOCK_STREAM)
    return [(found, kind, proto or socket.IPPROTO_TCP, "", address)]


def names_of(address: Any) -> tuple[str, str]:
    """As `socket.getnameinfo`."""
    return str(address[0]), str(address[1])
