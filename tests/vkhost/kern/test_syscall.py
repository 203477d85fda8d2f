"""System calls and CPU operations as messages, and the life of a process."""

from __future__ import annotations

import pytest
from vkprotocol import messages as msg
from vkprotocol.errno import Errno
from vkprotocol.insn import (
    MemOp,
    Trapframe,
    andn_bits,
    cmpset,
    copy_page,
    load,
    or_bits,
    store,
    swap,
    syscall,
    zero_page,
)
from vkprotocol.messages import AnyRequest
from vkprotocol.vkernel import SIGUSR1

from tests.vkhost.vkernel import DMAP, FD, RW, R, Vkernel
from vkhost.kern.lwp import File
from vkhost.kern.panic import Panic
from vkhost.kern.proc import killproc, proc_create
from vkhost.kern.syscall import SYSCALLS, proc_start
from vkhost.kern.user_calls import Fork, Mlock, Mprotect, Munlock
from vkhost.quirks import Quirks
from vkhost.vm.vnode import MemoryVnode

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
ID = 7
SHARED, FIXED, VPAGETABLE = 0x1, 0x10, 0x2000


def started(**options: int) -> Vkernel:
    k = Vkernel(**options)  # type: ignore[arg-type]
    k.start()
    return k


def errno(k: Vkernel, request: msg.Request) -> int:
    return k.call(request).errno


def test_every_request_has_its_call() -> None:
    assert set(SYSCALLS) == {*AnyRequest.__args__, Mprotect, Mlock, Munlock, Fork}


def test_a_host_program_protects_and_locks() -> None:
    k = started()
    length = 3 * PAGE
    at = k.call(msg.Mmap(lwp=0, seq=1, addr=0, length=length, prot=3, flags=0x1000, fd=-1,
                         offset=0)).value  # fmt: skip
    write = msg.CpuOps(lwp=0, seq=2, ops=(store(at, 5),))
    read = msg.CpuOps(lwp=0, seq=2, ops=(load(at),))
    wrong = {"addr": at + 3 * PAGE, "length": PAGE}
    assert errno(k, write) == 0
    assert errno(k, Mprotect(lwp=0, seq=3, addr=at, length=PAGE, prot=1)) == 0
    assert (errno(k, write), k.call(read).values) == (Errno.EFAULT, (5,))
    assert errno(k, Mprotect(lwp=0, seq=4, addr=(1 << 64) - PAGE, length=2 * PAGE, prot=1)) == (
        Errno.EINVAL
    )
    assert errno(k, Mlock(lwp=0, seq=5, addr=at, length=length)) == 0
    assert k.own.pmap.wired_count == 3
    assert errno(k, Mlock(lwp=0, seq=6, **wrong)) == Errno.ENOMEM
    assert errno(k, Mlock(lwp=0, seq=7, addr=at, length=1 << 30)) == Errno.EAGAIN
    assert errno(k, Munlock(lwp=0, seq=8, addr=at, length=length)) == 0
    assert (errno(k, Munlock(lwp=0, seq=9, **wrong)), k.own.pmap.wired_count) == (Errno.ENOMEM, 0)

    assert errno(k, Fork(lwp=0, seq=10)) == Errno.EAGAIN, "no CPU is idle"


def test_a_vkernels_boot() -> None:
    """mmap KVA and DMAP, SETMAP; a vmspace with the image; RUN; and all of it back."""
    k = started()
    length = 64 * PAGE
    kva = k.call(msg.Mmap(lwp=0, seq=1, addr=512 << 30, length=length, prot=7,
                          flags=SHARED | FIXED | VPAGETABLE, fd=FD, offset=0))  # fmt: skip
    dmap = k.call(msg.Mmap(lwp=0, seq=2, addr=0, length=length, prot=3, flags=SHARED, fd=FD,
                           offset=0))  # fmt: skip
    assert (kva.errno, kva.value) == (0, 512 << 30)
    assert (dmap.errno, dmap.value % PAGE) == (0, 0)
    base = dmap.value
    ops: list[MemOp] = [store(base + i * PAGE, i + 1 << 12 | RW) for i in range(3)]
    ops += [store(base + 3 * PAGE + 8, 10 << 12 | RW), store(base + 10 * PAGE, 42)]
    assert k.call(msg.CpuOps(lwp=0, seq=3, ops=tuple(ops))).errno == 0
    assert errno(k, msg.VmspaceCreate(lwp=0, seq=4, id=ID)) == 0
    assert errno(k, msg.VmspaceMmap(lwp=0, seq=5, id=ID, addr=0, length=length, prot=7, fd=FD,
                                    flags=SHARED | FIXED | VPAGETABLE, offset=0)) == 0  # fmt: skip
    assert errno(k, msg.VmspaceMcontrol(lwp=0, seq=6, id=ID, addr=0, length=length, behav=11,
                                        value=RW)) == 0  # fmt: skip
    frame = Trapframe(regs=(PAGE, *(0,) * 15), text=(_ld(1, 0), syscall()))
    reply = k.call(msg.VmspaceCtl(lwp=0, seq=7, id=ID, cmd=1, frame=frame))
    assert reply.frame is not None
    assert reply.frame.regs[1] == 42
    assert errno(k, msg.VmspaceMunmap(lwp=0, seq=8, id=ID, addr=0, length=length)) == 0
    assert errno(k, msg.VmspaceDestroy(lwp=0, seq=9, id=ID)) == 0


def _ld(rd: int, rs: int):  # type: ignore[no-untyped-def]
    from vkprotocol.insn import ld

    return ld(rd, rs)


def with_dmap() -> Vkernel:
    k = started()
    k.mmap(k.own, DMAP, 64 * PAGE, SHARED)
    return k


def test_cpu_operations() -> None:
    k = with_dmap()
    va = DMAP + 8
    reply = k.call(msg.CpuOps(lwp=0, seq=1, ops=(
        store(va, 0b1100), load(va), cmpset(va, 1, 2), cmpset(va, 0b1100, 0b0110), or_bits(va, 1),
        andn_bits(va, 0b0010), swap(va, 9), load(va), copy_page(DMAP + PAGE, DMAP),
        load(DMAP + PAGE + 8), zero_page(DMAP), load(va),
    )))  # fmt: skip

    assert reply.errno == 0
    assert reply.values == (0, 12, 0, 1, 6, 7, 5, 9, 0, 9, 0, 0)


@pytest.mark.parametrize("bad", [load(0), load(DMAP + 4), store(DMAP + 64 * PAGE, 1)])
def test_a_failed_operation_is_efault_and_its_index(bad: MemOp) -> None:
    k = with_dmap()
    reply = k.call(msg.CpuOps(lwp=0, seq=1, ops=(store(DMAP, 5), load(DMAP), bad, load(DMAP))))

    assert (reply.errno, reply.value, reply.values) == (Errno.EFAULT, 2, (0, 5))


def test_pread_and_pwrite_are_not_implemented() -> None:
    """`pwrite_einval`."""
    k = started()

    def both(vmspace_id: int) -> list[int]:
        return [
            errno(k, msg.VmspacePread(lwp=0, seq=1, id=vmspace_id, nbyte=8)),
            errno(k, msg.VmspacePwrite(lwp=0, seq=2, id=vmspace_id, buf=b"x")),
        ]

    assert both(ID) == [Errno.EINVAL, Errno.EINVAL]
    k.call(msg.VmspaceCreate(lwp=0, seq=3, id=1))
    assert both(ID) == [Errno.ENOENT, Errno.ENOENT]
    assert both(1) == [Errno.EINVAL, Errno.EINVAL]


def test_pread_and_pwrite_as_they_should_be() -> None:
    k = Vkernel(quirks=Quirks.none())
    k.start()
    k.call(msg.VmspaceCreate(lwp=0, seq=1, id=ID))
    guest = k.proc.p_vkernel.value.root[ID].vmspace
    k.vpagetable(k.tables({1: 10 << 12 | RW, 2: 11 << 12 | RW, 3: 12 << 12 | R}), vmspace=guest)

    def pwrite(offset: int, buf: bytes) -> tuple[int, int]:
        reply = k.call(msg.VmspacePwrite(lwp=0, seq=2, id=ID, buf=buf, offset=offset))
        return reply.errno, reply.value

    def pread(offset: int, nbyte: int) -> tuple[int, int, bytes]:
        reply = k.call(msg.VmspacePread(lwp=0, seq=3, id=ID, nbyte=nbyte, offset=offset))
        return reply.errno, reply.value, reply.buf

    assert pwrite(2 * PAGE - 2, b"abcd") == (0, 4)
    assert pread(2 * PAGE - 3, 6) == (0, 6, b"\0abcd\0")
    assert k.word(11) == int.from_bytes(b"cd", "little")
    assert pwrite(3 * PAGE - 1, b"xyz") == (0, 1)  # page 3 is read-only
    assert pread(4 * PAGE - 1, 9) == (0, 1, b"\0")  # page 4 is not there
    assert pread(-1, 9)[0] == Errno.EINVAL
    assert k.vnode.object is not None
    assert all(m.hold_count.value == 0 for m in k.vnode.object.memq.values())
    assert all(m.busy_count.value == 0 for m in k.vnode.object.memq.values())


def test_a_page_goes_to_a_file_and_no_further_than_its_end() -> None:
    k = with_dmap()
    disk = MemoryVnode("disk", 2 * PAGE)
    k.proc.files[9] = File(disk)
    k.proc.files[8] = File(disk, fwrite=False)
    k.call(msg.CpuOps(lwp=0, seq=1, ops=(store(DMAP + 8, 77),)))

    def pwrite(fd: int, addr: int, offset: int) -> tuple[int, int]:
        reply = k.call(msg.Pwrite(lwp=0, seq=2, fd=fd, addr=addr, offset=offset))
        return reply.errno, reply.value

    assert pwrite(9, DMAP, PAGE) == (0, PAGE)
    assert disk.content[PAGE + 8] == 77
    assert pwrite(8, DMAP, 0) == pwrite(7, DMAP, 0) == (Errno.EBADF, 0)
    for addr, offset in ((DMAP, 2 * PAGE), (DMAP, -PAGE), (DMAP, 1), (DMAP + 8, 0)):
        assert pwrite(9, addr, offset) == (Errno.EINVAL, 0)
    assert pwrite(9, DMAP + 64 * PAGE, 0) == (Errno.EFAULT, 0)


@pytest.mark.parametrize("request_", [
    msg.VmspaceMmap(lwp=0, seq=1, id=ID, addr=1, length=0, prot=0, flags=0x10, fd=99, offset=0),
    msg.VmspaceMunmap(lwp=0, seq=1, id=ID, addr=1, length=(1 << 64) - 1),
    msg.VmspaceMcontrol(lwp=0, seq=1, id=ID, addr=0, length=0, behav=-1),
    msg.VmspaceCtl(lwp=0, seq=1, id=ID, cmd=-1),
    msg.VmspaceDestroy(lwp=0, seq=1, id=ID),
])  # fmt: skip
def test_vmspace_calls_look_at_no_argument_before_the_id(request_: AnyRequest) -> None:
    k = started()

    assert errno(k, request_) == Errno.EINVAL  # no vmspace_create yet
    k.call(msg.VmspaceCreate(lwp=0, seq=2, id=1))
    assert errno(k, request_) == Errno.ENOENT
    ve = k.proc.p_vkernel.value.root[1]
    assert ve.refs.value == 0


def test_sysctl() -> None:
    k = started()

    assert errno(k, msg.Sysctl(lwp=0, seq=1, name="vm.nonsense")) == Errno.ENOENT
    assert errno(k, msg.Sysctl(lwp=0, seq=1, name="vm.v_page_count", new=1)) == Errno.EPERM
    assert k.call(msg.Sysctl(lwp=0, seq=1, name="vm.vkernel_enable")).value == 1


def test_a_guest_writes_no_sysctl() -> None:
    """What they steer is everybody's: the marks of the page daemon, vkernels as such."""
    k = started()
    for name, node in k.kernel.vmmeter.sysctls.items():
        before = node.get()
        assert errno(k, msg.Sysctl(lwp=0, seq=1, name=name, new=2**62)) == Errno.EPERM
        assert node.get() == before
    k.kernel.vmmeter.tunables["vkernel_enable"] = 0  # as root does
    assert errno(k, msg.VmspaceCreate(lwp=0, seq=2, id=ID)) == Errno.EOPNOTSUPP


def test_kill() -> None:
    k = started()

    assert errno(k, msg.Kill(lwp=0, seq=1, target=9, signo=SIGUSR1)) == Errno.ESRCH
    assert errno(k, msg.Kill(lwp=0, seq=1, target=1, signo=-1)) == Errno.EINVAL
    assert errno(k, msg.Kill(lwp=0, seq=1, target=1, signo=65)) == Errno.EINVAL
    assert errno(k, msg.Kill(lwp=0, seq=1, target=1, signo=0)) == 0
    assert k.proc.lwps[1].signals.value == ()
    assert errno(k, msg.Kill(lwp=0, seq=1, target=1, signo=SIGUSR1)) == 0
    assert k.proc.lwps[1].signals.value == (SIGUSR1,)


def test_the_last_lwp_to_exit_takes_the_process_and_its_memory_along() -> None:
    k = with_dmap()
    k.vnode.unlinked = True
    k.call(msg.CpuOps(lwp=0, seq=1, ops=(store(DMAP, 5),)))
    k.call(msg.VmspaceCreate(lwp=0, seq=2, id=ID))
    assert errno(k, msg.Exit(lwp=0, seq=3)) == 0
    assert k.own.vm_map.entries
    assert errno(k, msg.Exit(lwp=1, seq=4)) == 0

    assert k.own.vm_map.entries == []
    assert len(k.named("object.destroy")) == 1
    assert k.kernel.vmstats.v_free_count.value == 64
    assert k.named("vmspace.destroy") == [("vmspace.destroy", k.proc.pid, ID, 0)]
    assert [cpu.lwp for cpu in k.kernel.cpus] == [None, None]


def test_the_cpus_of_a_dead_process_are_for_the_next() -> None:
    k = started()
    assert proc_create(k.kernel, "second", None, 1) is None
    for lwp in range(2):
        k.call(msg.Exit(lwp=lwp, seq=1))
    second = proc_create(k.kernel, "vkernel", MemoryVnode("second", PAGE), 2)
    assert second is not None
    assert second.pid == k.proc.pid + 1
    proc_start(second)
    k.proc = second

    assert errno(k, msg.VmspaceCreate(lwp=0, seq=1, id=ID)) == 0


def test_exit_after_an_ebusy_panics_the_host() -> None:
    k = started()
    k.call(msg.VmspaceCreate(lwp=0, seq=1, id=ID))
    ve = k.proc.p_vkernel.value.root[ID]
    ve.refs.state = 1
    assert errno(k, msg.VmspaceDestroy(lwp=0, seq=2, id=ID)) == Errno.EBUSY
    ve.refs.state -= 1
    k.call(msg.Exit(lwp=0, seq=3))

    with pytest.raises(Panic, match="invalid refs 1"):
        k.call(msg.Exit(lwp=1, seq=4))


def test_a_killed_process_says_goodbye_to_each_of_its_cpus() -> None:
    k = with_dmap()
    k.do(killproc(k.proc))
    k.run()

    for lwp in k.proc.lwps:
        [goodbye] = lwp.replies.queue
        assert isinstance(goodbye, msg.Goodbye)
        assert goodbye.errno == Errno.EINTR
    assert k.own.vm_map.entries == []
    k.do(killproc(k.proc))  # of a zombie: nothing


def test_a_process_killed_in_the_middle_of_run_leaves_it() -> None:
    k = started()
    k.call(msg.VmspaceCreate(lwp=0, seq=1, id=ID))

    async def run_and_kill() -> None:
        from vkprotocol.insn import beq

        frame = Trapframe(text=(beq(0, 0, 0),))
        await k.lwp.requests.send(msg.VmspaceCtl(lwp=0, seq=2, id=ID, cmd=1, frame=frame))
        await killproc(k.proc)

    k.do(run_and_kill())
    k.run(max_steps=2_000)

    assert k.proc.zombie
