"""The memory image: an anonymous file that is the guest's RAM.

DragonFly vkernel64 `platform/init.c:init_sys_memory` as patched: a file made exclusively, unlinked
at once, sparse. It dies with its last descriptor, and with it all pages the host may still hold
PG_VPTMAPPED.
"""

from __future__ import annotations

import os
from pathlib import Path

from vkprotocol.param import PAGE_SIZE

from vkguest.kern.errors import BootError


def create_image(pages: int, directory: Path, name: str) -> int:
    """A descriptor of `pages` pages of zeros. Any failure is fatal, and one line."""
    path = directory / f".memimg.{name}"
    image_mode = 0o600
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, image_mode)
    except OSError as error:
        raise BootError(f"Unable to create {path}: {error.strerror}") from error
    try:
        path.unlink()
        os.ftruncate(fd, pages * PAGE_SIZE)
    except OSError as error:
        os.close(fd)
        raise BootError(f"Unable to size memory backing file: {error.strerror}") from error
    return fd


def memory_banner(pages: int) -> str:
    """What the console says about it."""
    return f"Using anonymous memory ({pages * PAGE_SIZE // (1024 * 1024)} MB)"
