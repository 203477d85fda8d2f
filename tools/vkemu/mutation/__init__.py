"""Does anything notice? Each deliberate defect of host, policies and guest against a check that
should, and the same check without the defect.

A check that fails both with and without has said nothing, and one that cannot fail is none. So a
mutant is *caught* when its check fails with it and does not fail without it.
"""

from vkemu.mutation.hunt import Caught, hunt
from vkemu.mutation.places import EQUIVALENT, PLACES

__all__ = ["EQUIVALENT", "PLACES", "Caught", "hunt"]
