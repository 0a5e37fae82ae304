"""Checkpoints: everything that the next step depends on, in one npz file that is replaced as a whole."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from examples.training.network import Network
from examples.training.optimizers import Optimizer

__all__ = ["CheckpointError", "load", "progress", "read", "save", "write"]


class CheckpointError(Exception):
    """A checkpoint is missing, damaged, or another network's."""


def save(path: Path, network: Network, optimizer: Optimizer | None = None, **told: Any) -> None:
    """Write a checkpoint: beside its place first, then moved there, so that a crash leaves the old one intact.

    Parameters
    ----------
    told
        Anything that JSON can say, for `load` to return.
    """
    arrays = {"values": network.values}
    arrays |= {f"buffer {name}": buffer for name, buffer in network.buffers().items()}
    if optimizer is not None:
        arrays |= {f"optimizer {name}": array for name, array in optimizer.state.items()}
        told["optimizer_steps"] = optimizer.steps
    told["network"] = _description(network)
    write(path, arrays, told)


def write(path: Path, arrays: dict[str, Any], told: dict[str, Any]) -> None:
    """Replace a file by these arrays and what JSON can say, as a whole."""
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            np.savez(stream, progress=text, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, network: Network, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Set the network's and the optimizer's state from a checkpoint, and return the progress that was saved."""
    arrays, saved = read(path)
    if saved.get("network") != _description(network):
        raise CheckpointError(f"{path} belongs to another network, or to one for other images or of another type")
    wanted = {"values": network.values}
    wanted |= {f"buffer {name}": buffer for name, buffer in network.buffers().items()}
    if optimizer is not None:
        wanted |= {f"optimizer {name}": array for name, array in optimizer.state.items()}
    for name, array in wanted.items():
        if name not in arrays or arrays[name].shape != array.shape:
            raise CheckpointError(f"{path} lacks {name!r} of shape {array.shape}")
    for name, array in wanted.items():
        array[...] = arrays[name]
    if optimizer is not None:
        optimizer.steps = int(saved["optimizer_steps"])
    return saved


def progress(path: Path, *names: str) -> list[Any]:
    """Some of what was saved as progress, before there is a network to load."""
    _, saved = read(path)
    if missing := [name for name in names if name not in saved]:
        raise CheckpointError(f"{path} does not say {', '.join(missing)}: it is another command's")
    return [saved[name] for name in names]


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `write` wrote."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            arrays = dict(found)
        saved: dict[str, Any] = json.loads(arrays.pop("progress").tobytes())
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is no checkpoint of this program, or damaged: {error}") from None
    return arrays, saved


def _description(network: Network) -> dict[str, Any]:
    """What must agree. Neither the layout nor the number of threads: parameters are the same in all of them."""
    parameters = [[layer.name, parameter.name, list(parameter.shape)] for layer, parameter in network.parameters()]
    return {"image": list(network.image), "dtype": network.context.dtype, "parameters": parameters}
