"""Reading what a run recorded: the commands of `vkemu log`, one module each."""

from __future__ import annotations
