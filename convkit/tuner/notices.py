"""The library's own trouble, told to the log once for each cause and never to the caller of a convolution."""

from __future__ import annotations

import threading

_lock = threading.Lock()
_told: set[str] = set()


def notice_once(cause: str, text: str) -> None:
    """Log `text` as a warning of the "convkit" logger, unless `cause` was told before in this process."""
    with _lock:
        if cause in _told:
            return
        _told.add(cause)
    import logging

    logging.getLogger("convkit").warning("%s", text)


def forget_notices() -> None:
    """Let every cause be told again: `convkit.reload` and tests."""
    with _lock:
        _told.clear()
