"""What ends a virtual kernel, and what ends one attempt of one of its kernel functions."""

from __future__ import annotations


class GuestPanic(Exception):
    """The guest kernel panics: one line, as the console would show it."""


class BootError(GuestPanic):
    """The guest could not come up; errx(1, ...) of init.c, one line that says why."""


class HostGone(Exception):
    """The host has said goodbye instead of answering: this vkernel's process was killed."""


class VmWait(Exception):
    """No free frame. The lwp sleeps on vm_pages_needed, and starts its trap all over again."""
