"""Litmus tests of the VM: two to four threads over a few named pages, decided by exploration."""

from vkemu.litmus.file import Litmus, read

__all__ = ["Litmus", "read"]
