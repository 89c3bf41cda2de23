"""Why some published runs are predicted badly, as far as it is known.

What is said here changes no prediction. `profiles/published/README.md` says it at length.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

PROFILE = "composed of one profile, whose host started the same kernels a fifth quicker than its neighbours"

# Pattern of record names → reason; the first that fits is taken.
REASONS: tuple[tuple[str, str], ...] = (
    ("vtrain_single-*-mb2-h2048-*-tp4-*", PROFILE),
    ("vtrain_single-*-mb4-h1024-*-tp2-*", PROFILE),
    (
        "vtrain-multi-3.6b-*-tp8-*-mb64",
        "twice its neighbour with microbatch 32; its collectors call it an outlier",
    ),
    (
        "vtrain-multi-3.6b-*-tp16-*-mb2",
        "the host's time is hidden behind collectives between nodes; priced as half hidden",
    ),
    ("vtrain-multi-39.1b-*-tp2-*", "a half longer than its neighbours with tp 4 and 8; no term explains it"),
    (
        "nanotron-64n-80b",
        "tp over two nodes of EFA, of which two measured clusters differ by a factor of two",
    ),
    (
        "nemolauncher-175b-*",
        "37 % utilisation where the same shape reached 51 %; whether it interleaved is not stated",
    ),
    (
        "bloom-prequel-02-28-206b-*",
        "every tensor is as large as in the 203B run beside it, which fitted with 67 GB",
    ),
)


def reasons(names: Iterable[str]) -> dict[str, str]:
    """Return the reason for every name that has one."""
    found = {}
    for name in names:
        for pattern, reason in REASONS:
            if fnmatchcase(name, pattern):
                found[name] = reason
                break
    return found
