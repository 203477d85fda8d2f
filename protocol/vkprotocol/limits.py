"""Every bound of the protocol, by name. Nothing a peer sends makes us hold more than these."""

from __future__ import annotations

from typing import Final

SCHEMA: Final = 1  # version of the message set, offered in Hello

FRAME_BYTES: Final = 1 << 18  # payload of one frame
RECEIVE_BYTES: Final = 1 << 20  # bytes kept while a frame is incomplete or its handling is behind

NAME_CHARS: Final = 64
TEXT_CHARS: Final = 256  # reasons and other one-line texts
SYSCTL_CHARS: Final = 128
TOKEN_CHARS: Final = 256

VCPUS: Final = 64
OUTSTANDING_PER_LWP: Final = 8  # requests sent and not yet answered
OPS_PER_BATCH: Final = 4096  # MemOps in one CpuOps
TEXT_INSNS: Final = 4096  # instructions in one Trapframe
RUN_BUDGET: Final = 1 << 20  # instructions in one RUN
IO_BYTES: Final = 1 << 16  # vmspace_pread / vmspace_pwrite

VMSPACES_PER_PROCESS: Final = 4096  # enforced by the host's session, ENOMEM beyond it
RAM_BYTES: Final = 512 << 30  # the DMAP spans no more

U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1
