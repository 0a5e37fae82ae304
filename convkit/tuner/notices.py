"""The library's own trouble, told to the log once for each cause and never to the caller of a convolution."""

from __future__ import annotations

import os
from collections.abc import Callable

from convkit.tuner.locks import planning
from convkit.tuner.process import Slot


@Slot
def _told() -> set[str]:
    """The causes that were told."""
    return set()


def notice_once(cause: str, text: str) -> None:
    """Log `text` as a warning of the "convkit" logger, unless `cause` was told before in this process."""
    with planning:
        if cause in _told():
            return
        _told().add(cause)
        import logging
    # Handlers are the user's code.
    planning.later(lambda: logging.getLogger("convkit").warning("%s", text))


def verbosity() -> int:
    """CONVKIT_VERBOSE: 0 tells trouble only, 1 each choice, 2 how it was made as well."""
    text = os.environ.get("CONVKIT_VERBOSE") or "0"
    if text not in ("0", "1", "2"):
        raise ValueError(f"CONVKIT_VERBOSE must be one of 0, 1, 2, got {text!r}")
    return int(text)


def narrate(level: int, text: Callable[[], str]) -> None:
    """Log a text as information where CONVKIT_VERBOSE asks for this level; to stderr where nobody listens."""
    if verbosity() < level:
        return
    with planning:
        import logging

        told = text()

    def tell() -> None:
        logger = logging.getLogger("convkit")
        if not logger.hasHandlers():
            logger.addHandler(logging.StreamHandler())
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.info("%s", told)

    planning.later(tell)
