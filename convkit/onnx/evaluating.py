"""Our operators for ONNX's own evaluator: ``ReferenceEvaluator(model, new_ops=convkit.onnx.ops())``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference.op_run import OpRun

from convkit.onnx import kernels as _kernels  # noqa: F401 - enters our operators
from convkit.onnx.call import OWN, Call, reference_of

__all__ = ["ops"]

_OF_RULES = frozenset({"FusedConv", "FusedConvTranspose", "JoinedConv", "MulAdd", "Silu"})


def ops() -> list[type[Any]]:
    """Operators of our own as classes for ONNX's reference evaluator.

    Operands that we have no code for (types, ranks) go to the reference's own implementation.

    Returns
    -------
    list of type
        Subclasses of ``onnx.reference.op_run.OpRun``, one for each operator.

    Examples
    --------
    >>> from onnx.reference import ReferenceEvaluator  # doctest: +SKIP
    >>> evaluator = ReferenceEvaluator("model.onnx", new_ops=ops())  # doctest: +SKIP
    """
    names = sorted(set(OWN) - _OF_RULES - {"Constant"})
    return [type(name, (_Own,), {"op_domain": ""}) for name in names]


class _Own(OpRun):  # type: ignore[misc]
    """An operator under its class's name; attributes come with the call, as those of a local function may be linked."""

    def _run(self, *operands: Any, **attributes: Any) -> tuple[Any, ...]:
        node, versions = self.onnx_node, self.run_params["opsets"]
        given = {attribute.name for attribute in node.attribute}
        known = {name: value for name, value in attributes.items() if name in given and value is not None}
        wanted = max((i + 1 for i, output in enumerate(node.output) if output), default=0)
        own = OWN[node.op_type](Call(node.op_type, versions[""], known, wanted))
        result = NotImplemented
        if own is not None:
            with np.errstate(all="ignore"):
                result = own(*operands)
        if result is NotImplemented:
            return _by_reference(node, known, versions, operands)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(value) for value in results)


def _by_reference(
    node: Any, attributes: Mapping[str, Any], versions: Mapping[str, int], operands: Any
) -> tuple[Any, ...]:
    # Inputs get names of their own: one value may be read twice.
    names = [f"input_{i}" if operand is not None else "" for i, operand in enumerate(operands)]
    tensors = {k: helper.np_dtype_to_tensor_dtype(v.dtype) for k, v in attributes.items() if isinstance(v, np.ndarray)}
    plain = {k: v for k, v in attributes.items() if k not in tensors}
    proto = helper.make_node(node.op_type, names, list(node.output), domain=node.domain, **plain)
    for name in tensors:
        from onnx.numpy_helper import from_array

        proto.attribute.append(helper.make_attribute(name, from_array(attributes[name])))
    compute, _ = reference_of(proto, versions)
    return tuple(compute(*operands))
