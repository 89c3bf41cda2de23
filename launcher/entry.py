"""What the `cuboid` script calls: settings that have to be made before anything is imported."""

from __future__ import annotations

import gc
import os
import sys


def entry() -> None:
    """Console entry point."""
    # Imports alone make some 300,000 objects that stay: looking through them again and again for garbage, and
    # once more at the end, takes an eighth of the time of a short command.
    gc.set_threshold(200_000, 50, 50)
    # Looking for plugins of pydantic reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Nothing here needs numpy's BLAS, which starts a thread for every core when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from launcher.cli import main  # noqa: PLC0415 (after the settings)

    code = main()
    gc.freeze()
    sys.exit(code)
