"""Let the C library keep the memory that tensors free.

glibc gives blocks from 128 KiB on back to the kernel as soon as they are freed. Training frees and allocates
the same blocks in every step, so each step would fault all of its pages in again, zeroed: more time than some
of the layers take. A rank on a CPU therefore keeps what it has freed. Now and then it gives back what has
gathered in the heaps of gloo's threads, each of which would otherwise grow to its own maximum.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # M_* of <malloc.h>
MMAP_BYTES = 32 << 20  # the most that mallopt takes
TRIM_BYTES = (1 << 31) - 1
TOP_PAD_BYTES = 64 << 20


def give_back_unused() -> None:
    """Return the pages to the kernel that no block lies in."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def keep_freed_memory() -> bool:
    """Keep freed blocks of up to 32 MiB in this process; return whether the allocator could be told."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, MMAP_BYTES), (_TRIM_THRESHOLD, TRIM_BYTES), (_TOP_PAD, TOP_PAD_BYTES))
    done = [mallopt(parameter, value) for parameter, value in settings]
    return all(done)
