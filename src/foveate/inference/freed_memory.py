"""Give memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back_freed_memory() -> None:
    """Return the free pages between what is in use, where the C library can (glibc); elsewhere nothing happens.

    The allocator keeps what is freed for later, and what it keeps is in pieces: over thousands of blocks, each with
    arrays of other sizes, the pieces that fit nothing add up.
    """
    if _trim is not None:
        _trim(0)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
