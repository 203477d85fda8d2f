"""One plausible message of every kind: what the golden files hold."""

from __future__ import annotations

from vkprotocol import insn
from vkprotocol.errno import Errno
from vkprotocol.insn import Trapframe
from vkprotocol.limits import SCHEMA
from vkprotocol.messages import (
    AnyMessage,
    CpuOps,
    Credentials,
    Exit,
    Goodbye,
    Hello,
    HelloReply,
    Kill,
    Madvise,
    Mcontrol,
    Mmap,
    Msync,
    Munmap,
    Pread,
    Pwrite,
    Reply,
    Signal,
    Status,
    StatusQuery,
    Sysctl,
    VmspaceCreate,
    VmspaceCtl,
    VmspaceDestroy,
    VmspaceMcontrol,
    VmspaceMmap,
    VmspaceMunmap,
    VmspacePread,
    VmspacePwrite,
)
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP, MAP_FIXED, MAP_SHARED, MAP_VPAGETABLE
from vkprotocol.param import KERNEL_KVA_SIZE, KERNEL_KVA_START, VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import PGEX_W, SIGUSR1, T_PAGEFLT, VMSPACE_CTL_RUN

PMAP = 0x80_0010_0040
VPAGETABLE = MAP_SHARED | MAP_FIXED | MAP_VPAGETABLE
PROGRAM = (
    insn.li(1, 0x40_0000),
    insn.ld(2, 1, 8),
    insn.addi(2, 2, -1),
    insn.st(2, 1, 8),
    insn.cas(3, 1, 4, 16),
    insn.fetch(1),
    insn.bne(2, 0, 1),
    insn.beq(0, 0, 8),
    insn.syscall(),
)

EXAMPLES: dict[str, AnyMessage] = {
    "hello": Hello(
        schema=SCHEMA,
        name="guest0",
        credentials=Credentials(pid=71, uid=1001, gid=0),
        memory=64 << 20,
        vcpus=2,
        image=True,
    ),
    "hello_reply": HelloReply(schema=SCHEMA, name="host", proc=1),
    "hello_reply.refused": HelloReply(
        schema=SCHEMA, name="host", errno=Errno.EPROCLIM, reason="16 guests are all this host takes"
    ),
    "status_query": StatusQuery(form="openmetrics", token="a shared secret of us"),
    "status": Status(part=b'{"guests":[]}', more=True),
    "goodbye": Goodbye(errno=Errno.EBADRPC, reason="byte 12: expected Hello, got Reply"),
    "signal": Signal(1, SIGUSR1),
    "vmspace_create": VmspaceCreate(PMAP, lwp=0, seq=1),
    "vmspace_destroy": VmspaceDestroy(PMAP, lwp=0, seq=2),
    "vmspace_ctl": VmspaceCtl(
        PMAP, VMSPACE_CTL_RUN, Trapframe(text=PROGRAM, budget=1000), lwp=1, seq=3
    ),
    "vmspace_mmap": VmspaceMmap(PMAP, 0, VM_MAX_USER_ADDRESS, 7, VPAGETABLE, 3, 0, lwp=0, seq=4),
    "vmspace_munmap": VmspaceMunmap(PMAP, 0x40_0000, 0x1000, lwp=0, seq=5),
    "vmspace_mcontrol": VmspaceMcontrol(PMAP, 0x40_0000, 0x1000, MADV_SETMAP, 0x5007, lwp=0, seq=6),
    "vmspace_pread": VmspacePread(PMAP, 512, 0, 4096, lwp=0, seq=7),
    "vmspace_pwrite": VmspacePwrite(PMAP, b"\x00\xff", 0, -1, lwp=0, seq=8),
    "mmap": Mmap(
        KERNEL_KVA_START, KERNEL_KVA_SIZE, 7, VPAGETABLE, 3, KERNEL_KVA_START, lwp=0, seq=9
    ),
    "pread": Pread(4, 0x100_0000_0000, 0x3000, lwp=0, seq=24),
    "pwrite": Pwrite(4, 0x100_0000_0000, 0x3000, lwp=0, seq=25),
    "munmap": Munmap(0x2000, 0x1000, lwp=0, seq=10),
    "mcontrol": Mcontrol(KERNEL_KVA_START, 0x1000, MADV_INVAL, lwp=0, seq=11),
    "madvise": Madvise(0xFFFF_FFFF_FFFF_F000, 0x2000, -1, lwp=0, seq=12),
    "msync": Msync(0x2000, 0x1000, 0, lwp=0, seq=13),
    "sysctl": Sysctl("vm.vpagetable_faults", lwp=0, seq=14),
    "sysctl.set": Sysctl("vm.debug_vpagetable", 1, lwp=0, seq=15),
    "kill": Kill(1, SIGUSR1, lwp=0, seq=16),
    "exit": Exit(0, lwp=0, seq=17),
    "cpu_ops": CpuOps(
        (
            insn.load(0x1000),
            insn.store(0x1008, 0xFFFF_FFFF_FFFF_FFFF),
            insn.cmpset(0x1010, 0, 0x5003),
            insn.swap(0x1010, 0),
            insn.or_bits(0x1010, 0x60),
            insn.andn_bits(0x1010, 0x42),
            insn.zero_page(0x2000),
            insn.copy_page(0x3000, 0x2000),
        ),
        lwp=0,
        seq=0xFFFF_FFFF,
    ),
    "reply": Reply(lwp=0, seq=1),
    "reply.errno": Reply(lwp=0, seq=2, errno=Errno.EOPNOTSUPP),
    "reply.values": Reply(lwp=0, seq=3, errno=Errno.EFAULT, value=1, values=(1 << 63,)),
    "reply.frame": Reply(
        lwp=1,
        seq=4,
        frame=Trapframe(
            pc=3, regs=(*range(16),), trapno=T_PAGEFLT, addr=0x40_0008, err=PGEX_W, budget=996
        ),
    ),
}
