"""What mmap(2), madvise(2), msync(2) and minherit(2) take. DragonFly `sys/sys/mman.h`."""

from __future__ import annotations

from typing import Final

PROT_NONE: Final = 0x00
PROT_READ: Final = 0x01
PROT_WRITE: Final = 0x02
PROT_EXEC: Final = 0x04

MAP_FILE: Final = 0x0000
MAP_SHARED: Final = 0x0001
MAP_PRIVATE: Final = 0x0002
MAP_FIXED: Final = 0x0010
MAP_STACK: Final = 0x0400
MAP_NOSYNC: Final = 0x0800
MAP_ANON: Final = 0x1000
MAP_VPAGETABLE: Final = 0x2000
MAP_TRYFIXED: Final = 0x0001_0000
MAP_NOCORE: Final = 0x0002_0000
MAP_SIZEALIGN: Final = 0x0004_0000

MADV_NORMAL: Final = 0
MADV_RANDOM: Final = 1
MADV_SEQUENTIAL: Final = 2
MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 5
MADV_NOSYNC: Final = 6
MADV_AUTOSYNC: Final = 7
MADV_NOCORE: Final = 8
MADV_CORE: Final = 9
MADV_CONTROL_START: Final = 10
MADV_INVAL: Final = 10
MADV_SETMAP: Final = 11
MADV_CONTROL_END: Final = 11

MS_SYNC: Final = 0x0
MS_ASYNC: Final = 0x1
MS_INVALIDATE: Final = 0x2

INHERIT_SHARE: Final = 0
INHERIT_COPY: Final = 1
INHERIT_NONE: Final = 2
