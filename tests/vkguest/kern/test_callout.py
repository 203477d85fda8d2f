"""kern_timeout.c: the verifier of a callout in a kernel whose memory is a process's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vkprotocol.param import VM_MAX_USER_ADDRESS

from vkguest.kern.callout import check_verifier, verifier_of
from vkguest.kern.errors import GuestPanic
from vkguest.quirks import AS_PATCHED, Quirks


def gd(quirks: Quirks = AS_PATCHED) -> Any:
    return SimpleNamespace(kernel=SimpleNamespace(name="vk0", quirks=quirks))


def test_a_verifier_of_a_vkernel_is_a_user_address_of_the_host() -> None:
    lp: Any = SimpleNamespace(proc=SimpleNamespace(pid=7), tid=1)

    assert verifier_of(lp) < VM_MAX_USER_ADDRESS
    check_verifier(gd(), verifier_of(lp))


def test_with_the_check_the_first_callout_is_a_panic() -> None:
    """As before the patch: softclock_handler holds the address for none of a kernel."""
    lp: Any = SimpleNamespace(proc=SimpleNamespace(pid=7), tid=1)

    with pytest.raises(GuestPanic, match="verifier"):
        check_verifier(gd(Quirks(callout_verifier_check=True)), verifier_of(lp))
