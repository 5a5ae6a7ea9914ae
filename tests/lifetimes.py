"""Whether things go when nobody holds them, not when somebody looks for circles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable


def freed_at_once(make: Callable[[], object]) -> bool:
    """Whether what ``make`` makes, and uses, goes with its last holder."""
    gc.disable()
    try:
        return weakref.ref(make())() is None
    finally:
        gc.enable()
