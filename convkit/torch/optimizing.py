"""``convkit.torch.optimize``: a model's own modules, computed by convkit."""

from __future__ import annotations

import copy
import ctypes
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from convkit import clear_workspaces
from convkit.torch import packings
from convkit.torch.blocks import block_of, rewrite, settle
from convkit.torch.measuring import pick_formats, slower_layers
from convkit.torch.modules import SWAPPED
from convkit.tuner.inventory import parse_accuracy

__all__ = ["optimize", "refresh"]

Filter = Callable[[Any, str], bool]
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_MEMORY = ("fast", "low")


def optimize(
    model: Any,
    sample_input: Any = None,
    *,
    inplace: bool = False,
    filter_fn: Filter | None = None,
    accuracy: str | float | None = None,
    memory: str = "fast",
    verbose: bool = True,
) -> Any:
    """Let convkit compute a model's convolutions on the CPU, with batch norms, activations and sums fused in inference.

    The module tree stays: objects keep their names, parameters, hooks and place, and exact `torch.nn.Conv1d`,
    `Conv2d`, `ConvTranspose1d` and `ConvTranspose2d` objects become subclasses of what they are. In training, and
    wherever somebody looks at what is between, everything is computed as the model's author wrote it, with convkit's
    gradients.

    Parameters
    ----------
    model : torch.nn.Module
    sample_input : Tensor, tuple or dict, optional
        What the model is called with: a tensor, a tuple of arguments, or a dict of named ones. It is run some times:
        blocks are checked, the memory format inside is chosen by time, and convolutions that take longer than
        PyTorch's are given back.
    inplace : bool
        Change the model itself instead of a copy.
    filter_fn : callable, optional
        ``filter_fn(module, name)`` says which convolutions may be swapped.
    accuracy : optional
        As in `convkit.conv2d`.
    memory : {"fast", "low"}
        Whether packed filters may be larger than the model's weights.
    verbose : bool
        Print what was swapped, what was fused, and what was left, with the reasons.

    Returns
    -------
    torch.nn.Module
        The optimized model.

    Raises
    ------
    TypeError
        If `model` is not a module that can be changed, `sample_input` none of the above, or `filter_fn` not callable.
    ValueError
        If an option has no such value.

    Examples
    --------
    >>> import torch
    >>> from convkit.torch import optimize
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    >>> model = optimize(model, torch.zeros(1, 3, 8, 8))
    convkit: 1 of 1 convolutions swapped, 1 chain fused in 1 block: conv+relu
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, whose code is compiled already: optimize the model, then trace it")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if sample_input is not None and not isinstance(sample_input, torch.Tensor | tuple | list | Mapping):
        raise TypeError(f"sample_input must be a tensor, or a tuple or dict of them, not {type(sample_input).__name__}")
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(f"filter_fn must be callable as filter_fn(module, name), not {type(filter_fn).__name__}")
    if memory not in _MEMORY:
        raise ValueError(f"memory must be one of {', '.join(_MEMORY)}, got {memory!r}")
    options: tuple[tuple[str, str], ...] = () if accuracy is None else (("accuracy", str(parse_accuracy(accuracy))),)
    options += () if memory == "fast" else (("memory", memory),)
    model = model if inplace else copy.deepcopy(model)
    left: Counter[str] = Counter()
    swapped = _swap(model, filter_fn, options, left)
    for module in reversed(list(model.modules())):  # children first
        if any(type(inner) in SWAPPED.values() for inner in module.modules()):
            rewrite(module, always=True)
    regions: list[str] = []
    if sample_input is not None:

        def run() -> None:
            _run(model, sample_input)

        run()  # compares
        regions = pick_formats(model, run)
        for module in slower_layers(model, run):
            _give_back(module)
            swapped -= 1
            left["slower than PyTorch's on the sample"] += 1
        packings.forget(model.parameters())
        settle(model)
        run()  # packs what is used
        if memory == "low":
            _return_memory()
    else:
        settle(model)
    if verbose:
        print(_report(model, swapped, left, regions))
    return model


def refresh(model: Any = None) -> None:
    """Forget what was packed, so that the next call reads all weights anew.

    Changes that PyTorch makes are seen without it: optimizers, `load_state_dict`, in-place operations, new
    parameters. What is written through ``tensor.data`` or an array that shares its memory is seen if it changes all of
    a weight, but a change of a few values may be missed; so may any change of tensors made in `torch.inference_mode`.

    Parameters
    ----------
    model : torch.nn.Module, optional
        Whose weights have changed; None: all.
    """
    packings.forget(None if model is None else [*model.parameters(), *model.buffers()])


def _swap(model: Any, filter_fn: Filter | None, options: Any, left: Counter[str]) -> int:
    swapped = 0
    for name, module in model.named_modules():
        if not isinstance(module, _CONVOLUTIONS):
            continue
        if type(module) in SWAPPED.values():
            swapped += 1
            continue
        why = _refusal(module)
        if not why and filter_fn is not None and not filter_fn(module, name):
            why = "filter_fn said no"
        if why:
            left[why] += 1
            continue
        module.__class__ = SWAPPED[type(module)]
        if options:
            module.__dict__["_convkit_options"] = options
        swapped += 1
    return swapped


def _give_back(module: Any) -> None:
    """Make a convolution PyTorch's again."""
    module.__class__ = next(theirs for theirs, own in SWAPPED.items() if own is type(module))
    module.__dict__.pop("_convkit_options", None)


def _refusal(module: Any) -> str:
    """Why a convolution stays PyTorch's; empty if it need not."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        return "three dimensions"
    if isinstance(module, LazyModuleMixin):
        return "lazy: run the model once before"
    if type(module) not in SWAPPED:
        return f"of a subclass, {type(module).__name__}"
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return "with a forward of its own"
    weight = module._parameters.get("weight")
    if weight is None:
        return "with a weight that is computed"
    if weight.dtype not in (torch.float32, torch.float64):
        return f"of {str(weight.dtype).removeprefix('torch.')}"
    if weight.device.type != "cpu":
        return f"on {weight.device.type}"
    return ""


def _run(model: Any, sample_input: Any) -> Any:
    """The model's result in inference."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            if isinstance(sample_input, Mapping):
                return model(**sample_input)
            return model(*sample_input) if isinstance(sample_input, tuple | list) else model(sample_input)
    finally:
        for module, training in modes:
            module.training = training


def _return_memory() -> None:
    """Give back what comparing and timing took, which convkit and the C library keep for later calls."""
    clear_workspaces()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _report(model: Any, swapped: int, left: Counter[str], regions: list[str]) -> str:
    blocks = {module: block for module in model.modules() if (block := block_of(module)) is not None and block.chains}
    within = {module.get_submodule(name) for module, block in blocks.items() if not block.why for name in block.inlined}
    used = {module: block for module, block in blocks.items() if not block.why and module not in within}
    chains = Counter(chain for block in used.values() for chain in block.chains)
    learning = sum(
        module.training or any(module.get_submodule(name).training for name in block.inlined)
        for module, block in used.items()
    )
    count, total = chains.total(), swapped + left.total()
    text = f"convkit: {swapped} of {total} convolutions swapped"
    if count:
        kinds = ", ".join(kind if n == 1 else f"{n} {kind}" for kind, n in chains.most_common())
        fused = "can be fused" if learning else "fused"
        text += f", {count} chain{'s' * (count > 1)} {fused} in {len(used)} block{'s' * (len(used) > 1)}: {kinds}"
    lines = [text]
    if learning:
        lines.append(f"  in training mode: {learning} of {len(used)} blocks, not fused before model.eval()")
    lines += [f"  left: {n} {why}" for why, n in left.most_common()]
    for name, module in model.named_modules():
        block = blocks.get(module)
        if block is not None and block.why:
            lines.append(f"  as written: {name or type(module).__name__}, {block.why}")
    if regions:
        lines.append(f"  channels last inside: {', '.join(name or 'the whole model' for name in regions)}")
    packed = packings.packed_nbytes(model.parameters())
    if packed:
        own = sum(p.nbytes for p in model.parameters())
        lines.append(f"  packed filters: {packed / 1e6:.1f} MB, beside the model's {own / 1e6:.1f} MB")
    return "\n".join(lines)
