"""`InferenceSession`: a model, loaded once and run by as many threads as like, with ONNX Runtime's calls."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import convkit as ck
from convkit.onnx import kernels as _kernels  # noqa: F401 - enters our operators
from convkit.onnx.errors import ModelError
from convkit.onnx.feeds import checked, declared
from convkit.onnx.loading import load
from convkit.onnx.options import (
    PROVIDER,
    GraphOptimizationLevel,
    ModelMetadata,
    NodeArg,
    SessionOptions,
    accepted_providers,
)
from convkit.onnx.plan import Plans, Run, root
from convkit.onnx.profile import Profile
from convkit.onnx.rules import simplify
from convkit.tables import aligned

__all__ = ["InferenceSession"]


class InferenceSession:
    """An ONNX model that runs on NumPy arrays.

    Parameters
    ----------
    path_or_bytes : path, bytes or onnx.ModelProto
        The model. Tensors outside of the file are read only for a path, and only from the model's folder.
    sess_options : SessionOptions, optional
        Threads, and whether the graph is changed before it runs.
    providers, provider_options : optional
        As programs give them to ONNX Runtime; the CPU must be among the providers.

    Raises
    ------
    ModelError
        If the model is damaged or incomplete, or has an operator that nobody here knows.

    Examples
    --------
    >>> session = InferenceSession("model.onnx")  # doctest: +SKIP
    >>> (y,) = session.run(None, {"x": x})  # doctest: +SKIP
    """

    def __init__(
        self,
        path_or_bytes: Any,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        accepted_providers(providers)
        self._options = sess_options or SessionOptions()
        model = load(path_or_bytes)
        try:
            self._prepare(model)
        except ModelError:
            raise
        except Exception as error:  # a damaged file may hold what no rule expects
            raise ModelError(f"the model cannot be prepared: {type(error).__name__}: {error}") from error
        self._last: Run | None = None
        self._kernels: dict[str, str] = {}

    def _prepare(self, model: Any) -> None:
        graph = model.graph
        if (model.ir_version or 0) < 4:  # until then every initializer had to be listed among the inputs
            for value in [value for value in graph.inputs if value.name in graph.initializers]:
                graph.inputs.remove(value)
        self._inputs = [declared(value) for value in graph.inputs]
        self._ranked = frozenset(value.name for value in graph.inputs if value.shape is not None)
        self._optional = frozenset(name for name in graph.initializers)
        self._outputs = [declared(value)[0] for value in graph.outputs]
        self._meta = ModelMetadata(
            model.producer_name or "", graph.name or "", model.domain or "", graph.doc_string or "",
            model.model_version or 0, dict(model.metadata_props),
        )  # fmt: skip
        self.changes: dict[str, int] = {}
        if self._options.graph_optimization_level != GraphOptimizationLevel.ORT_DISABLE_ALL:
            self.changes = simplify(model)
        memory = self._options.get_session_config_entry("convkit.memory", "fast")
        self._threads = max(self._options.intra_op_num_threads, 0) or None
        self._plans = Plans(model, self._threads, memory)
        for value in graph.initializers.values():
            value.const_value = (
                None  # nodes that stay for the reference's sake hold the graph, and this its file's bytes
            )
        if memory == "low":
            _give_back()

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: object = None
    ) -> list[Any]:
        """Compute outputs. Any number of threads may do so at once.

        Parameters
        ----------
        output_names : sequence of str or None
            Which, in this order; None: all.
        input_feed : mapping of str to array
            Inputs by name.
        run_options : object, optional
            Accepted and not looked at.

        Returns
        -------
        list of ndarray
            Memory of their own: nothing that a later run or the caller's own arrays would change.

        Raises
        ------
        TypeError, ValueError
            If a feed is of another type or shape than the model declares; the message names the input.
        ModelError
            If a node cannot be computed.
        """
        found, self._last = self._run(output_names, input_feed)
        return found

    def _run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> tuple[list[Any], Run]:
        feed = checked(input_feed, self._inputs, self._optional, self._ranked)
        names = [arg.name for arg in self._outputs]
        wanted = names if output_names is None else list(output_names)
        for name in wanted:
            if name not in names:
                raise ValueError(f"no output {name!r}: the model's outputs are {names}")
        values, record = self._plans.run(feed)
        taken = {id(root(value)) for value in feed.values() if isinstance(value, np.ndarray)} | self._plans.constants
        found = {}
        for name, value in zip(names, values, strict=True):
            if isinstance(value, np.ndarray | np.generic):
                value = _own(np.asarray(value), taken, self._threads)
                taken.add(id(root(value)))
            found[name] = value
        return [found[name] for name in wanted], record

    def profile(self, input_feed: Mapping[str, Any]) -> Profile:
        """Run once, and tell what each node did: kernel, shape, time.

        Parameters
        ----------
        input_feed : mapping of str to array
            As for `run`.

        Returns
        -------
        Profile
            A table, to be had as CSV or Chrome trace.
        """
        with ck.profile() as calls:
            _, record = self._run(None, input_feed)
        found = Profile.of(record, calls.records)
        self._last = record
        self._kernels.update({node.name: node.kernel for node in found.nodes})
        return found

    def describe(self) -> str:
        """The plan: every node with its operator and, after a run, shape and time; kernels after a `profile`.

        Returns
        -------
        str
            A table in the order of the run.
        """
        if self._last is not None:
            return Profile.of(self._last, (), self._kernels).table()
        rows = [("node", "op")] + [(step.name, step.op) for step in self._plans.general.steps]
        return "\n".join(aligned(rows, left=(0, 1)))

    def get_inputs(self) -> list[NodeArg]:
        """Inputs that a feed must have, with name, type and shape."""
        return [arg for arg, _ in self._inputs if arg.name not in self._optional]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs that have a value already."""
        return [arg for arg, _ in self._inputs if arg.name in self._optional]

    def get_outputs(self) -> list[NodeArg]:
        """Outputs, with name, type and shape."""
        return list(self._outputs)

    def get_modelmeta(self) -> ModelMetadata:
        """What the file says of itself, the producer's own entries in ``custom_metadata_map``."""
        return self._meta

    def get_providers(self) -> list[str]:
        """Where the model runs."""
        return [PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Options of the provider: there are none."""
        return {PROVIDER: {}}

    def get_session_options(self) -> SessionOptions:
        """The options it was made with."""
        return self._options

    def set_providers(self, providers: Sequence[Any] | None = None, provider_options: object = None) -> None:
        """Accepted if the CPU is among them."""
        accepted_providers(providers)


def _give_back() -> None:
    """What reading the file has left behind goes back to the system; the C library would keep it for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _own(value: Any, taken: set[int], threads: int | None) -> Any:
    """A C-contiguous array whose memory nobody else holds."""
    if not value.flags.c_contiguous:
        if value.ndim <= 4 and value.dtype in (np.float32, np.float64):
            return ck.transpose(value, range(value.ndim), num_threads=threads)
        return np.ascontiguousarray(value)
    return value.copy() if id(root(value)) in taken else value
