"""Telling a service manager how far we are. systemd's sd_notify(3), which is a datagram."""

from __future__ import annotations

import os
import socket


def sd_notify(state: str) -> bool:
    """Say `state` (READY=1, STOPPING=1) where $NOTIFY_SOCKET says. False: nobody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.connect("\0" + address[1:] if address[0] == "@" else address)
            out.send(state.encode())
    except OSError:
        return False
    return True
