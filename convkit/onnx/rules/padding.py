"""Pad with zeros goes into the convolution that follows."""

from __future__ import annotations

from typing import Any

from convkit.onnx.rules.graph import constant, number, only_user, replace

__all__ = ["apply"]


def apply(model: Any) -> int:
    """Fold Pad into Conv."""
    count = 0
    for pad in list(model.graph):
        if pad.op_type != "Pad" or pad.domain not in ("", "ai.onnx"):
            continue
        pads, conv = _zeros(pad), only_user(pad.outputs[0])
        if pads is None or conv is None or conv.op_type != "Conv" or conv.inputs[0] is not pad.outputs[0]:
            continue
        attributes = dict(conv.attributes)
        auto = attributes.get("auto_pad")
        n = len(pads) // 2 - 2
        if min(pads) < 0 or any(pads[i] or pads[n + 2 + i] for i in (0, 1)):
            continue
        if auto is not None and auto.value not in ("NOTSET", "VALID"):
            continue
        own = list(attributes["pads"].value) if "pads" in attributes and auto is None else [0] * 2 * n
        spatial = [*pads[2 : n + 2], *pads[n + 4 :]]
        attributes.pop("auto_pad", None)
        attributes["pads"] = [a + b for a, b in zip(own, spatial, strict=True)]
        replace(model, [pad, conv], "Conv", [pad.inputs[0], *conv.inputs[1:]], attributes)
        count += 1
    return count


def _zeros(pad: Any) -> list[int] | None:
    """Pads of a node that pads with zeros, else None."""
    if "mode" in pad.attributes and pad.attributes["mode"].value != "constant":
        return None
    if "pads" in pad.attributes:
        value = pad.attributes["value"].value if "value" in pad.attributes else 0.0
        return list(pad.attributes["pads"].value) if value == 0 else None
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        return None
    if len(pad.inputs) > 2 and pad.inputs[2] is not None and number(pad.inputs[2]) != 0:
        return None
    pads = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    return None if pads is None or len(pads) < 6 else [int(p) for p in pads]
