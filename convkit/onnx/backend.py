"""ONNX's backend interface, for its own tests: ``onnx.backend.test.BackendTest(convkit.onnx.backend, __name__)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import helper
from onnx.backend.base import Backend, BackendRep

from convkit.onnx.session import InferenceSession

__all__ = ["NumpyBackend", "PreparedModel", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class PreparedModel(BackendRep):  # type: ignore[misc]
    """A loaded model.

    Parameters
    ----------
    session : InferenceSession
        Who runs it.
    """

    def __init__(self, session: InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Compute all outputs of a list of inputs, or of one, or of a mapping by name."""
        if not isinstance(inputs, Mapping):
            given = inputs if isinstance(inputs, Sequence) else [inputs]
            inputs = dict(zip((arg.name for arg in self._session.get_inputs()), given, strict=False))
        return tuple(self._session.run(None, inputs))


class NumpyBackend(Backend):  # type: ignore[misc]
    """Models by `InferenceSession`."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **_: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **_: Any) -> PreparedModel:
        if not cls.supports_device(device):
            raise ValueError(f"device must be CPU, not {device}")
        return PreparedModel(InferenceSession(model))

    @classmethod
    def run_node(cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **more: Any) -> Any:
        given = inputs if isinstance(inputs, Sequence) else [inputs]
        names = [name for name in node.input if name]
        infos = [helper.make_empty_tensor_value_info(name) for name in names]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "node", infos, outputs)
        versions = [helper.make_opsetid(node.domain, more["opset_version"])] if "opset_version" in more else None
        prepared = cls.prepare(helper.make_model(graph, opset_imports=versions), device)
        return prepared.run(dict(zip(names, given, strict=True)))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


is_compatible = NumpyBackend.is_compatible
prepare = NumpyBackend.prepare
run_model = NumpyBackend.run_model
run_node = NumpyBackend.run_node
supports_device = NumpyBackend.supports_device
