"""The observers of a study as one: an error in an observer never harms the study.

Knows: that observers are called in order, and that what they raise is logged.
Must not know: what they do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import final

from dspex.engine.ports import Observer, StudyEvent

__all__ = ["Audience"]

logger = logging.getLogger("dspex")


@final
class Audience:
    """Passes each event to all observers.

    Parameters
    ----------
    observers : iterable of Observer

    Examples
    --------
    >>> from dspex.engine.ports import Notice
    >>> seen = []
    >>> Audience([seen.append])(Notice(message="hello"))
    >>> seen[0].message
    'hello'
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def __call__(self, event: StudyEvent) -> None:
        """Pass one event on."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                logger.exception(
                    "an observer failed at %s; the study goes on", type(event).__name__
                )
