"""What vmspace_ctl(2) takes and gives. DragonFly `sys/sys/vkernel.h`, x86_64 `trap.h`, `pmap.h`."""

from __future__ import annotations

from typing import Final

VMSPACE_CTL_RUN: Final = 1

# Declared by sys/vkernel.h but never returned: the guest reads tf_trapno instead.
VMSPACE_PAGEFAULT: Final = 1
VMSPACE_TIMEOUT: Final = 2
VMSPACE_TRAP: Final = 3
VMSPACE_SYSCALL: Final = 4

T_PRIVINFLT: Final = 1
T_BPTFLT: Final = 3
T_ARITHTRAP: Final = 6
T_ASTFLT: Final = 7
T_PROTFLT: Final = 9
T_TRCTRAP: Final = 10
T_PAGEFLT: Final = 12
T_ALIGNFLT: Final = 14
T_DIVIDE: Final = 18
T_DNA: Final = 22  # the FPU holds somebody else's state
T_XMMFLT: Final = 29
T_SYSCALL80: Final = 0x80
T_FAST_SYSCALL: Final = 0x81
T_SYSCALL: Final = T_SYSCALL80  # the only one our instruction set has

PGEX_P: Final = 0x01
PGEX_W: Final = 0x02
PGEX_U: Final = 0x04
PGEX_RSV: Final = 0x08
PGEX_I: Final = 0x10
PGEX_FPFAULT: Final = 0x80

# Signals a vkernel uses on itself or the host on a vkernel.
SIGHUP: Final = 1
SIGINT: Final = 2
SIGILL: Final = 4
SIGTRAP: Final = 5
SIGFPE: Final = 8
SIGKILL: Final = 9
SIGBUS: Final = 10
SIGSEGV: Final = 11
SIGPIPE: Final = 13
SIGTERM: Final = 15
SIGCHLD: Final = 20
SIGUSR1: Final = 30
SIGUSR2: Final = 31
NSIG: Final = 64
