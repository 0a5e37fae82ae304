"""A module's inference as straight-line code: no module is called and no tensor wrapped that need not be.

Every call of a block asks its modules and weights whether they are what they were, and hands each convolution to
PyTorch's dispatcher. Code that was written for one team and for weights as they are asks all at once, and passes arrays
from one function of convkit's to the next. It is used for plain tensors in inference; in all other cases, and once
something has changed, the block computes as it would without.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch

from convkit.torch.comparing import compared
from convkit.torch.fused_modules import is_unwatched
from convkit.torch.packings import is_unpacked
from convkit.torch.reading import UnreadableError, block_of, whole
from convkit.torch.watching import Structure, Values, is_plain
from convkit.torch.writing import Writer

__all__ = ["Code", "Codes"]

_MOST_CODES = 8  # of a block: team sizes, formats within


class Code:
    """Source bound to weights as they are and to a team.

    Attributes
    ----------
    run : callable
        Takes and gives what the module's forward does.
    count : int
        How many tensors it takes.
    structure : Structure
    values : Values
        What it took for granted.
    """

    def __init__(self, run: Any, count: int, structure: Structure, values: Values) -> None:
        self.run, self.count, self.structure, self.values = run, count, structure, values


class Codes:
    """The code of one block: read once, bound anew when weights change.

    Attributes
    ----------
    why : str
        Why there is none; empty as long as there may be.
    """

    def __init__(self) -> None:
        self.why = ""
        self._writers: dict[Any, Writer] = {}
        self._codes: dict[Any, Code] = {}
        self._agreed: set[Any] = set()
        self._formats: list[Any] | None = None
        self._fixed: tuple[bool, ...] | None = None
        self._misses = 0
        self._may_read = True

    def run(self, module: Any, given: tuple[Any, ...], otherwise: Callable[..., Any]) -> Any:
        """The module's value, or NotImplemented where the block is to compute it.

        Parameters
        ----------
        module : Module
        given : tuple of Tensor
        otherwise : callable
            Computes the module's value without this code.
        """
        if torch.compiler.is_compiling() or self.why or not (self._may_read or self._writers):
            return NotImplemented
        if _comparing.get() or is_unpacked() or not is_plain(given):
            return NotImplemented
        formats = self._fixed if self._fixed is not None else self._formats_now(module)
        code = self._codes.get((torch.get_num_threads(), formats))
        if code is None:
            # What could not be written or did not stand is tried again after 1, 2, 4, 8, ... calls.
            code = None if self._misses & (self._misses - 1) else self._bound(module, formats)
            if code is None:
                self._misses += 1
                return NotImplemented
        elif not code.structure.stands():
            self._misses += 1
            if self._may_read:
                self.forget()
            return NotImplemented
        elif not code.values.stand():
            self._codes.clear()
            return NotImplemented
        if len(given) != code.count:
            return NotImplemented
        self._misses = 0
        if formats in self._agreed:
            return code.run(*given)
        return self._first(code, given, formats, otherwise)

    def forget(self) -> None:
        """Read anew at the next try."""
        self._codes.clear()
        self._writers.clear()
        self._agreed.clear()
        self._formats = None

    def close(self, module: Any) -> bool:
        """Read now or never: torch.fx changes what all modules do while it reads, in all threads.

        Returns
        -------
        bool
            Whether the module could be read.
        """
        self.forget()
        if not self.why:
            self._fixed = self._formats_now(module)
            self._writer(module, self._fixed)
        self._may_read = False
        return not self.why

    def drop(self) -> None:
        """Never read: what is around the module was."""
        self.forget()
        self._may_read = False

    def _formats_now(self, module: Any) -> tuple[bool, ...]:
        if self._formats is None:
            self._formats = [b for m in module.modules() if m is not module and (b := block_of(m)) is not None]
        return tuple(block.last for block in self._formats)

    def _writer(self, module: Any, formats: Any) -> Writer | None:
        writer = self._writers.get(formats)
        if writer is None and self._may_read:
            try:
                writer = self._writers[formats] = Writer(whole(module), module)
            except UnreadableError as error:
                self.why = str(error)
        return writer

    def _bound(self, module: Any, formats: Any) -> Code | None:
        writer = self._writer(module, formats)
        if writer is None or not all(is_unwatched(m) for m in module.modules() if m is not module):
            return None
        bound = writer.bind(module, torch.get_num_threads()) if writer.structure.stands() else None
        if bound is None:
            if self._may_read:
                self.forget()
            return None
        if len(self._codes) >= _MOST_CODES:
            self._codes.clear()
        run, values = bound
        code = self._codes[torch.get_num_threads(), formats] = Code(run, writer.count, writer.structure, values)
        return code

    def _first(self, code: Code, given: tuple[Any, ...], formats: Any, otherwise: Callable[..., Any]) -> Any:
        """Compute both ways."""

        def as_written(*given: Any) -> Any:
            token = _comparing.set(True)
            try:
                return otherwise(*given)
            finally:
                _comparing.reset(token)

        wanted, same = compared(given, as_written, code.run)
        if same:
            self._agreed.add(formats)
        else:
            self.why = "computes something else when it is read as a whole"
            self._codes.clear()
        return wanted


_comparing: ContextVar[bool] = ContextVar("convkit_torch_comparing", default=False)
