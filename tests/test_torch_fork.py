"""A fork while another thread changes what all modules, or all of PyTorch's calls, share. Each test has its process."""

from __future__ import annotations

import textwrap

import pytest
from shims import fresh

pytest.importorskip("torch", reason="PyTorch is not installed")

PREAMBLE = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn about forks with threads
import torch
from torch import nn
import convkit.torch as door
from convkit.torch import enabling

torch.set_num_threads(1)
midway = threading.Event()

def gives_a_fork_time():
    # In the other thread only.
    if threading.current_thread() is thread:
        midway.set()
        threading.Event().wait(0.5)

def child_says(work):
    # Whether a child, made when the other thread is midway, finds what it should; a hang is ended by an alarm.
    thread.start()
    assert midway.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(60)
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    thread.join()
    assert status == 0, status
"""


def run(script: str, *arguments: str) -> None:
    """Run a script in a fresh interpreter."""
    fresh(PREAMBLE + textwrap.dedent(script), *arguments, CONVKIT_DB=":memory:")


COUNTED = """
    computed = []
    own = enabling.convolved
    enabling.convolved = lambda *given: (computed.append(1), own(*given))[1]
    images, filters = torch.ones(1, 2, 5, 5), torch.ones(3, 2, 3, 3)

    def count():
        # How many of two calls convkit computes: one that it knows, and one that it leaves to PyTorch.
        computed.clear()
        for dtype in (torch.float32, torch.int64):
            torch.nn.functional.conv2d(images.to(dtype), filters.to(dtype))
        return len(computed)

    def comes_and_goes():
        found = []
        for call in (door.enable, door.disable):
            call()
            found.append(count())
        return found == [1, 0]
"""


@pytest.mark.parametrize("call", ["enable", "disable"])
def test_a_child_has_all_kernels_registered_or_none(call: str) -> None:
    run(
        COUNTED
        + """
    kind = torch.library.Library
    impl, destroy = kind.impl, kind._destroy

    def slow_impl(self, name, *given, **named):
        impl(self, name, *given, **named)
        gives_a_fork_time()

    def slow_destroy(self):
        gives_a_fork_time()
        destroy(self)

    if sys.argv[1] == "disable":
        door.enable()
        assert count() == 1
    thread = threading.Thread(target=getattr(door, sys.argv[1]))
    kind.impl, kind._destroy = slow_impl, slow_destroy
    child_says(comes_and_goes)
    assert count() == (sys.argv[1] == "enable")
    """,
        call,
    )


@pytest.mark.parametrize("method", ["impl", "_destroy"])
def test_an_interrupt_leaves_nothing_in_the_way(method: str) -> None:
    run(
        COUNTED
        + """
    kind, name = torch.library.Library, sys.argv[1]
    own = getattr(kind, name)

    def interrupted(self, *given, **named):
        setattr(kind, name, own)
        if name == "impl":
            own(self, *given, **named)
        raise KeyboardInterrupt

    setattr(kind, name, interrupted)
    try:
        door.enable()
        door.disable()
    except KeyboardInterrupt:
        pass
    assert getattr(kind, name) is own
    assert count() == 0
    assert comes_and_goes()
    """,
        method,
    )


def test_a_child_has_modules_as_they_are() -> None:
    run("""
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            gives_a_fork_time()
            return self.second(self.first(x))

    model, x = Slow().eval(), torch.ones(1, 2, 6, 6)
    call, thread = nn.Module.__call__, threading.Thread(target=door.optimize, args=(model,), kwargs={"inplace": True})
    wanted = model(x)

    def works():
        with torch.no_grad():
            same = torch.allclose(model(x), wanted, atol=1e-5)
        return nn.Module.__call__ is call and same and type(model).__name__ == "Slow"

    child_says(works)
    assert works()
    """)
