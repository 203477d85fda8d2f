"""Books: what the kernels count, list and flag, counted again from what there is.

Books(kernel, oracle.shadow).check()      # at the end; raises Violation of invariant 12
"""

from vkemu.books.heirs import Heirs
from vkemu.books.host import Books
from vkemu.books.quiet import QuietBooks

__all__ = ["Books", "Heirs", "QuietBooks"]
