"""How a vkernel comes up, what it says when it cannot, and its memory image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vkprotocol import messages as msg
from vkprotocol.insn import Mem
from vkprotocol.mman import (
    MADV_NOSYNC,
    MADV_SETMAP,
    MAP_NOCORE,
    MAP_NOSYNC,
    MAP_SHARED,
    MAP_VPAGETABLE,
)
from vkprotocol.param import KERNEL_KVA_SIZE, KERNEL_KVA_START
from vkprotocol.vpte import VPTE_RW, VPTE_V

from tests.vkguest.rig import on_fake
from vkguest.kern.errors import BootError
from vkguest.kern.param import DMAP_MIN_ADDRESS, FIRST_FREE_FRAME, phys_to_dmap
from vkguest.mutants import GUEST_MENDS, GUEST_MUTANTS, GUEST_QUIRKS, MUTANTS, check_mutants
from vkguest.vkernel64.image import create_image, memory_banner


def test_the_order_of_facts_10() -> None:
    requests: list[msg.AnyRequest] = []
    on_fake([], requests=requests)

    sysctl, kva, nosync, dmap, tables, setmap, end = requests
    assert isinstance(sysctl, msg.Sysctl)
    assert sysctl.name == "vm.vkernel_enable"
    assert isinstance(kva, msg.Mmap)
    assert (kva.addr, kva.length) == (KERNEL_KVA_START, KERNEL_KVA_SIZE)
    assert kva.offset == KERNEL_KVA_START
    assert kva.flags & (MAP_SHARED | MAP_VPAGETABLE) == MAP_SHARED | MAP_VPAGETABLE
    assert isinstance(nosync, msg.Madvise)
    assert nosync.behav == MADV_NOSYNC
    assert isinstance(dmap, msg.Mmap)
    assert (dmap.addr, dmap.offset) == (DMAP_MIN_ADDRESS, 0)
    assert dmap.flags & MAP_VPAGETABLE == 0
    assert dmap.flags & (MAP_NOCORE | MAP_NOSYNC) == MAP_NOCORE | MAP_NOSYNC
    assert isinstance(tables, msg.CpuOps)
    assert isinstance(setmap, msg.Mcontrol)
    assert (setmap.behav, setmap.value) == (MADV_SETMAP, VPTE_RW | VPTE_V)
    assert isinstance(end, msg.Exit)


def test_the_tables_are_built_through_the_dmap() -> None:
    requests: list[msg.AnyRequest] = []
    on_fake([], requests=requests)

    (tables,) = (r for r in requests if isinstance(r, msg.CpuOps))
    end = phys_to_dmap(FIRST_FREE_FRAME)
    assert all(DMAP_MIN_ADDRESS <= op.va < end for op in tables.ops)


@pytest.mark.parametrize("vcpus", [1, 3])
def test_a_refused_mapping_is_one_line_and_the_end(vcpus: int) -> None:
    run = on_fake(["touch"], vcpus=vcpus, vpagetable=False)

    assert run.vkernel.boot_error is not None
    assert "cannot boot" in run.vkernel.boot_error
    assert "MAP_VPAGETABLE: EINVAL" in run.vkernel.boot_error
    assert "\n" not in run.vkernel.boot_error
    assert run.vkernel.results == {}
    assert run.host.counts["Exit"] == vcpus


def test_no_memory_for_the_first_processes_is_a_boot_error() -> None:
    run = on_fake(["idle"] * 20, pages=24)

    # 20 frames, 4 of them the reserve, and a root table for each.
    assert run.vkernel.boot_error == "vk0: no memory left for process 17"


def test_prezero_touches_every_page_once() -> None:
    requests: list[msg.AnyRequest] = []
    on_fake([], requests=requests, pages=300, prezero=True)

    zeroed = [
        op.va
        for request in requests
        if isinstance(request, msg.CpuOps)
        for op in request.ops
        if op.op is Mem.ZERO
    ]
    assert zeroed[:300] == [phys_to_dmap(frame) for frame in range(300)]


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="too few for 2 vCPUs"):
        on_fake([], pages=18, vcpus=2)


def test_mutants_have_names_and_unknown_ones_are_told() -> None:
    assert {*GUEST_MUTANTS, *GUEST_MENDS, *GUEST_QUIRKS} == set(MUTANTS)
    with pytest.raises(ValueError, match="no guest mutant 'nonesuch'"):
        check_mutants(frozenset({"async-inval", "nonesuch"}))


def test_the_image_is_private_unlinked_and_sparse(tmp_path: Path) -> None:
    fd = create_image(1000, tmp_path, "42")
    status = os.fstat(fd)
    os.close(fd)

    assert list(tmp_path.iterdir()) == []
    assert status.st_nlink == 0
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == 1000 * 4096
    assert status.st_blocks == 0


def test_the_image_is_made_exclusively(tmp_path: Path) -> None:
    (tmp_path / ".memimg.42").touch()
    with pytest.raises(BootError, match=r"^Unable to create .*\.memimg\.42: File exists$"):
        create_image(1, tmp_path, "42")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="No such file or directory"):
        create_image(1, tmp_path / "var", "42")


def test_an_image_that_cannot_be_sized(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="Unable to size memory backing file"):
        create_image(1 << 50, tmp_path, "42")
    assert list(tmp_path.iterdir()) == []


def test_the_banner() -> None:
    assert memory_banner(64 * 256) == "Using anonymous memory (64 MB)"
