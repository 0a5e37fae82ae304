"""A pointwise convolution of an enlarged image is the convolution, enlarged: it is computed for the pixels there are.

Feature pyramids join an enlarged image with another one before such a convolution. Its filters are cut in two: the sum
of both convolutions is the same, and one of them has as many pixels less as the image was enlarged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from convkit.onnx.rules.graph import attribute, channels, constant, new_constant, only_user, pointwise

__all__ = ["apply"]

_LEAST_CHANNELS = 16  # of the enlarged image: the sum of fewer costs more than it saves


def apply(model: Any) -> int:
    """Move nearest-neighbour enlarging behind the pointwise convolutions that alone read it; how many images."""
    count = 0
    for concat in list(model.graph):
        if concat.op_type != "Concat" or concat.domain not in ("", "ai.onnx") or concat.outputs[0].is_graph_output():
            continue
        if attribute(concat, "axis", 1) not in (1, -3) or len(concat.inputs) < 2:
            continue
        convs = [use.node for use in concat.outputs[0].uses()]
        if not convs or not all(conv.graph is concat.graph and _pointwise(conv, concat.outputs[0]) for conv in convs):
            continue
        sizes = _sizes(concat.inputs, constant(convs[0].inputs[1]).shape[1])
        enlarged = [i for i, value in enumerate(concat.inputs) if _enlarges(value)]
        if sizes is None or not enlarged:
            continue
        i = max(enlarged, key=lambda part: sizes[part])
        if sizes[i] < _LEAST_CHANNELS:
            continue
        others = [value for part, value in enumerate(concat.inputs) if part != i]
        if len(others) > 1:
            join = ir.Node("", "Concat", others, concat.attributes.values(), name=concat.name)
            model.graph.insert_after(concat, join)
            others = list(join.outputs)
        for conv in convs:
            _split(model, conv, concat.inputs[i].producer(), others[0], sum(sizes[:i]), sizes[i])
        count += 1
    return count


def _pointwise(conv: Any, x: Any) -> bool:
    """Whether a node is a convolution of this value's pixels, each by itself."""
    plain = conv.op_type == "Conv" and conv.domain in ("", "ai.onnx") and conv.inputs[0] is x
    return plain and x not in conv.inputs[1:] and pointwise(conv)


def _sizes(parts: Sequence[Any], total: int) -> list[int] | None:
    """The channels of all parts, if those of all but one are known."""
    found = [channels(part) for part in parts]
    if found.count(None) == 1:
        found[found.index(None)] = total - sum(size for size in found if size is not None)
    known = [size for size in found if size is not None and size > 0]
    return known if len(known) == len(parts) and sum(known) == total else None


def _enlarges(value: Any) -> bool:
    """Whether a value is an image whose pixels were repeated by constant factors, and has no other reader."""
    resize = value.producer()
    if resize is None or resize.op_type not in ("Resize", "Upsample") or resize.domain not in ("", "ai.onnx"):
        return False
    if only_user(value) is None or attribute(resize, "mode", "nearest") != "nearest":
        return False
    if {"axes", "scales"} & set(resize.attributes) or len(resize.inputs) > 3:
        return False
    if attribute(resize, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return False  # what lies outside is a constant
    scales = constant(resize.inputs[-1])  # the second input, or after a region of interest the third
    return scales is not None and scales.shape == (4,) and tuple(scales[:2]) == (1, 1) and min(scales[2:]) >= 1.5


def _split(model: Any, conv: Any, resize: Any, rest: Any, begin: int, size: int) -> None:
    """Put the sum of two convolutions in place of one: of `size` channels as they were, enlarged, and of all others."""
    name, w = conv.outputs[0].name, constant(conv.inputs[1])
    part = np.s_[begin : begin + size]
    of_part, of_rest = (new_constant(model, array, name) for array in (w[:, part], np.delete(w, part, axis=1)))
    attributes = conv.attributes.values()
    small = ir.Node("", "Conv", [resize.inputs[0], of_part], attributes, name=f"{conv.name}/enlarged")
    enlarged = [small.outputs[0], *resize.inputs[1:]]
    large = ir.Node("", resize.op_type, enlarged, resize.attributes.values(), name=f"{conv.name}/{resize.name}")
    others = ir.Node("", "Conv", [rest, of_rest, *conv.inputs[2:]], attributes, name=conv.name)
    total = ir.Node("", "Add", [others.outputs[0], large.outputs[0]], name=f"{conv.name}/sum")
    old, new = conv.outputs[0], total.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(model.graph, conv, [conv], [small, large, others, total], [old], [new])
