"""The two forms of an fxsave image, 512 bytes: bytes 8 to 23 are the last instruction's and the
last operand's address, of 64 bits each with REX.W (fxsave64), else of 32 with a selector.

Intel SDM vol. 1, 10.5.1; DragonFly sys/cpu/x86_64/include/npx.h, struct envxmm64.
"""

from __future__ import annotations

import struct
from typing import Final

LONG: Final = struct.Struct("<QQ")
SHORT: Final = struct.Struct("<IHHIHH")


def short_pointers(image: bytes) -> bytes:
    """What fxsave without REX.W has in bytes 8 to 23: the upper half of both is lost."""
    fip, fdp = LONG.unpack(image[8:24])
    # The selectors of 64-bit code, which a processor may also leave out.
    selector = 0
    u32 = (1 << 32) - 1
    return SHORT.pack(fip & u32, selector, 0, fdp & u32, selector, 0)


def long_pointers(image: bytes) -> bytes:
    """What fxrstor without REX.W makes of them."""
    fip, _, _, fdp, _, _ = SHORT.unpack(image[8:24])
    return LONG.pack(fip, fdp)
