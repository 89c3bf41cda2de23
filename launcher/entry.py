"""What the `cuboid` script calls: settings that have to be made before anything is imported."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def entry() -> NoReturn:
    """Console entry point."""
    # Imports make some 300,000 objects that stay: looking through them again and again for garbage takes a
    # tenth of the time of a short command.
    gc.set_threshold(200_000, 50, 50)
    # Looking for plugins of pydantic reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Nothing here needs numpy's BLAS, which starts a thread for every core when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from launcher.cli import main  # noqa: PLC0415 (after the settings)

    code = main()
    if threading.active_count() > 1:
        sys.exit(code)
    # Handing memory back at once takes less time than taking it apart object by object.
    atexit._run_exitfuncs()
    with suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
