"""Asks a store again that does not answer. Knows time; knows nothing about stores."""

import time
from collections.abc import Callable
from typing import TypeVar

from services.errors import BackendUnavailable
from services.repository.copies import Say

Result = TypeVar("Result")

_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 20.0


def patiently(work: Callable[[], Result], *, seconds: float, say: Say) -> Result:
    """Returns what `work` returns; does it again, ever later, for as long as it raises BackendUnavailable.

    Raises the last of those once `seconds` are over; `say` hears of each.
    """
    end, pause = time.monotonic() + seconds, _FIRST_SECONDS
    while True:
        try:
            return work()
        except BackendUnavailable as error:
            left = end - time.monotonic()
            if left <= 0:
                raise
            pause = min(pause, left)
            say(f"{error.message}; asked again in {pause:.0f} s")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_SECONDS)
