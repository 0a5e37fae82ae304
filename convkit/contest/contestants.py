"""Who competes: each contestant is set up once for a layer and a team size, then called.

A contestant's set-up packs weights, builds sessions and warms up; its call does only what a user pays for each time.
Peers that are not installed, or cannot do a layer, are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convkit.problem import Problem
from convkit.typing import Accuracy, Activation

if TYPE_CHECKING:
    from convkit.tuner import Choice

__all__ = ["PEERS", "Contestant", "Operands", "convkit_contestant", "in_layout", "installed", "peer"]

Array = NDArray[Any]
Part = tuple[Problem, str, tuple[int, ...]]


@dataclass(frozen=True)
class Contestant:
    """Something that computes a layer.

    Attributes
    ----------
    call : callable
        Does the work once; its result is whatever the library returns.
    result : callable
        Turns that into an array of the forward output (or gradient) with NCHW's shape.
    kernel : str
        The kernel that runs, if it is known.
    parts : tuple of (Problem, str, tuple of int)
        The kernels behind the call with their problems and parameters, if they are known.
    """

    name: str
    call: Callable[[], Any]
    result: Callable[[Any], Array]
    kernel: str = ""
    parameters: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()


class Operands:
    """Operands of a problem, NCHW and OIHW: `x` and `w` (forward), `dy` if a gradient is computed.

    Parameters
    ----------
    x, w, bias : ndarray, optional
        Random if they are left out.
    """

    def __init__(
        self, problem: Problem, seed: int = 0, *,
        x: Array | None = None, w: Array | None = None, bias: Array | None = None,
    ) -> None:  # fmt: skip
        p = self.problem = problem
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return np.asarray(rng.standard_normal(shape, dtype=p.dtype))

        self.x = normal(p.n, p.c, p.h, p.w) if x is None else x
        self.w = normal(*p.w_shape) if w is None else w
        self.bias = (normal(p.o) if bias is None else bias) if p.bias else None
        self.dy = normal(p.n, p.o, p.oh, p.ow) if p.op != "forward" else None
        self.residual = normal(p.n, p.o, p.oh, p.ow) if p.residual else None

    @property
    def geometry(self) -> dict[str, Any]:
        """Stride, padding, dilation and groups as `convkit.conv2d` takes them."""
        p = self.problem
        return {
            "stride": (p.stride_h, p.stride_w),
            "padding": ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right)),
            "dilation": (p.dilation_h, p.dilation_w),
            "groups": p.groups,
        }

    @property
    def activation(self) -> Activation | None:
        """An activation of the problem's class."""
        names: dict[str, Activation | None] = {"none": None, "clamp": "relu", "other": "silu"}
        return names[self.problem.epilogue]

    @property
    def plain(self) -> bool:
        """True if there is nothing behind the convolution but what every library has: a bias and a ReLU."""
        return self.problem.epilogue != "other" and not self.problem.residual

    def exact(self) -> Array:
        """The result in float64, NCHW (OIHW for a weight gradient)."""
        from convkit import reference

        p = self.problem
        if p.op == "input_grad":
            return reference.conv2d_input(self.x.shape, self.w, self.dy, **self.geometry)  # type: ignore[arg-type]
        if p.op == "weight_grad":
            return reference.conv2d_weight(self.x, self.w.shape, self.dy, **self.geometry)  # type: ignore[arg-type]
        return reference.conv2d(
            self.x, self.w, self.bias, activation=self.activation, residual=self.residual, **self.geometry
        )


def in_layout(array: Array, layout: str) -> Array:
    """An NCHW array in the memory order of a layout."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if layout == "NHWC" else array


def convkit_contestant(
    operands: Operands, threads: int, algorithm: str | None = None, accuracy: Accuracy | None = None
) -> Contestant:
    """What the selector chooses, or the best known candidate of a family or kernel.

    A forward convolution is called as a user calls it, a gradient through the inventory.

    Raises
    ------
    convkit.UnsupportedAlgorithmError
        Where the algorithm does not apply.
    """
    from convkit.tuner import choose

    choice = choose(operands.problem, threads, algorithm=algorithm, accuracy=accuracy)
    call = _gradient_call(operands, choice) if operands.dy is not None else _forward_call(operands, choice)
    layout = "NCHW" if operands.problem.op == "weight_grad" else operands.problem.layout

    def result(y: Any) -> Array:
        return np.asarray(y.transpose(0, 3, 1, 2) if layout == "NHWC" else y)

    name = f"convkit {algorithm}" if algorithm else "convkit"
    part = operands.problem, choice.kernel, choice.parameters
    return Contestant(f"{name} {operands.problem.layout}", call, result, choice.kernel, choice.parameters, (part,))


def _forward_call(operands: Operands, choice: Choice) -> Callable[[], Any]:
    import convkit

    p = operands.problem
    x = in_layout(operands.x, p.layout)
    keywords: dict[str, Any] = {
        **operands.geometry,
        "layout": p.layout,
        "activation": operands.activation,
        "algorithm": choice,
        "num_threads": choice.threads,
    }
    added = {} if operands.residual is None else {"residual": in_layout(operands.residual, p.layout)}
    if p.packed:
        return partial(convkit.Conv2d(operands.w, operands.bias, **keywords), x, **added)
    return partial(convkit.conv2d, x, operands.w, operands.bias, **added, **keywords)


def _gradient_call(operands: Operands, choice: Choice) -> Callable[[], Any]:
    from convkit import _core

    p = operands.problem
    assert operands.dy is not None
    dy = in_layout(operands.dy, p.layout)
    first, second = (dy, operands.w) if p.op == "input_grad" else (in_layout(operands.x, p.layout), dy)
    return _core.Runner(
        choice.candidate.kernel.index, choice.parameters, p.to_core(), choice.threads, first, second
    ).run


def _numpy(operands: Operands, threads: int) -> Contestant | None:
    """im2col and one matrix product, as one writes it in NumPy; the BLAS has its own threads."""
    p = operands.problem
    if p.op != "forward" or p.groups != 1:
        return None
    x, w, bias = operands.x, operands.w, operands.bias
    rows, columns = p.dilation_h * (p.kh - 1) + 1, p.dilation_w * (p.kw - 1) + 1
    pads = ((0, 0), (0, 0), (p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right))

    def call() -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), (rows, columns), axis=(2, 3))
        windows = windows[:, :, :: p.stride_h, :: p.stride_w, :: p.dilation_h, :: p.dilation_w]
        gathered = windows.transpose(0, 1, 4, 5, 2, 3).reshape(p.n, p.c * p.kh * p.kw, p.oh * p.ow)
        y = w.reshape(p.o, -1) @ gathered
        if bias is not None:
            y += bias[:, None]
        if p.epilogue == "clamp":
            np.maximum(y, 0, out=y)
        return np.asarray(y.reshape(p.n, p.o, p.oh, p.ow))

    return Contestant("NumPy im2col", call, np.asarray)


def _symmetric(p: Problem) -> bool:
    return p.pad_top == p.pad_bottom and p.pad_left == p.pad_right


def _torch(operands: Operands, threads: int) -> Contestant | None:
    import torch

    p = operands.problem
    if not _symmetric(p):
        return None
    torch.set_num_threads(threads)
    memory = torch.channels_last if p.layout == "NHWC" else torch.contiguous_format
    x, w = (torch.from_numpy(a).contiguous(memory_format=memory) for a in (operands.x, operands.w))
    stride, padding, dilation = [p.stride_h, p.stride_w], [p.pad_top, p.pad_left], [p.dilation_h, p.dilation_w]
    if p.op != "forward":
        dy = torch.from_numpy(operands.dy).contiguous(memory_format=memory)
        wanted = [p.op == "input_grad", p.op == "weight_grad", False]
        backward = torch.ops.aten.convolution_backward

        def gradient() -> Any:
            found = backward(dy, x, w, None, stride, padding, dilation, False, [0, 0], p.groups, wanted)
            return found[0] if wanted[0] else found[1]

        return Contestant(f"PyTorch {p.layout}", gradient, lambda y: np.asarray(y.contiguous().numpy()))
    bias = None if operands.bias is None else torch.from_numpy(operands.bias)
    fused = "relu" if p.epilogue == "clamp" else "none"
    if p.packed and p.dtype == "float32":
        # What torch.compile emits for a frozen model: weights reordered once, activation fused.
        w = torch.ops.mkldnn._reorder_convolution_weight(w.clone(), padding, stride, dilation, p.groups, list(x.shape))
        convolution = torch.ops.mkldnn._convolution_pointwise.default

        def forward() -> Any:
            return convolution(x, w, bias, padding, stride, dilation, p.groups, fused, [], "")
    else:

        def forward() -> Any:
            y = torch.nn.functional.conv2d(x, w, bias, stride, padding, dilation, p.groups)
            return y.relu_() if fused == "relu" else y

    return Contestant(f"PyTorch {p.layout}", forward, lambda y: np.asarray(y.contiguous().numpy()))


def _onnxruntime(operands: Operands, threads: int) -> Contestant | None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    p = operands.problem
    if p.op != "forward" or p.dtype != "float32":
        return None
    names = ["x", "w"] + (["b"] if p.bias else [])
    constants = [numpy_helper.from_array(operands.w, "w")]
    if operands.bias is not None:
        constants.append(numpy_helper.from_array(operands.bias, "b"))
    relu = p.epilogue == "clamp"
    nodes = [
        helper.make_node(
            "Conv",
            names,
            ["c" if relu else "y"],
            kernel_shape=[p.kh, p.kw],
            strides=[p.stride_h, p.stride_w],
            pads=[p.pad_top, p.pad_left, p.pad_bottom, p.pad_right],
            dilations=[p.dilation_h, p.dilation_w],
            group=p.groups,
        )
    ]
    if relu:
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    output = [p.n, p.o, p.oh, p.ow]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(operands.x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert onnx
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = onnxruntime.OrtValue.ortvalue_from_numpy(operands.x)
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(output, np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)

    def call() -> Any:
        session.run_with_iobinding(binding)
        return y

    return Contestant("ONNX Runtime", call, lambda value: np.asarray(value.numpy()))


def _openvino(operands: Operands, threads: int) -> Contestant | None:
    import openvino
    from openvino import opset13

    p = operands.problem
    if p.op != "forward" or p.dtype != "float32":
        return None
    stride, dilation = [p.stride_h, p.stride_w], [p.dilation_h, p.dilation_w]
    begin, end = [p.pad_top, p.pad_left], [p.pad_bottom, p.pad_right]
    source = opset13.parameter(list(operands.x.shape), np.float32, name="x")
    if p.groups == 1:
        node = opset13.convolution(source, opset13.constant(operands.w), stride, begin, end, dilation)
    else:
        grouped = operands.w.reshape(p.groups, p.o // p.groups, *operands.w.shape[1:])
        node = opset13.group_convolution(source, opset13.constant(grouped), stride, begin, end, dilation)
    if operands.bias is not None:
        node = opset13.add(node, opset13.constant(operands.bias.reshape(1, -1, 1, 1)))
    if p.epilogue == "clamp":
        node = opset13.relu(node)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": False,
    }
    model = openvino.Core().compile_model(openvino.Model([node], [source], "layer"), "CPU", settings)
    request = model.create_infer_request()
    y = np.zeros((p.n, p.o, p.oh, p.ow), np.float32)
    tensors = openvino.Tensor(operands.x, shared_memory=True), openvino.Tensor(y, shared_memory=True)
    request.set_input_tensor(tensors[0])
    request.set_output_tensor(tensors[1])

    def call() -> Any:
        request.infer(share_outputs=True)
        return y

    return Contestant("OpenVINO", call, np.asarray)


def _ncnn(operands: Operands, threads: int) -> Contestant | None:
    import ncnn

    p = operands.problem
    square = p.kh == p.kw and p.stride_h == p.stride_w and p.dilation_h == p.dilation_w and p.pad_top == p.pad_left
    if p.op != "forward" or p.dtype != "float32" or p.n > 16 or not square or not _symmetric(p):
        return None
    kind = "ConvolutionDepthWise" if p.groups > 1 else "Convolution"
    bias = np.zeros(p.o, np.float32) if operands.bias is None else operands.bias
    options = {0: p.o, 1: p.kh, 2: p.dilation_h, 3: p.stride_h, 4: p.pad_top, 5: 1, 6: operands.w.size}
    if p.groups > 1:
        options[7] = p.groups
    if p.epilogue == "clamp":
        options[9] = 1
    settings = " ".join(f"{key}={value}" for key, value in options.items())
    net = ncnn.Net()
    net.opt.num_threads = threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)
    with tempfile.TemporaryDirectory() as folder:
        parameters, weights = Path(folder) / "layer.param", Path(folder) / "layer.bin"
        parameters.write_text(f"7767517\n2 2\nInput in 0 1 x\n{kind} layer 1 1 x y {settings}\n")
        weights.write_bytes(np.zeros(1, np.uint32).tobytes() + operands.w.tobytes() + bias.tobytes())
        net.load_param(str(parameters))
        net.load_model(str(weights))
    images = [ncnn.Mat(image).clone() for image in operands.x]

    def call() -> Any:
        found = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("x", image)
            found.append(extractor.extract("y")[1])
        return found

    return Contestant("ncnn", call, lambda found: np.stack([np.array(image) for image in found]))


# Name on the command line: the module that must be installed, and the set-up.
PEERS: dict[str, tuple[tuple[str, ...], Callable[[Operands, int], Contestant | None]]] = {
    "numpy": (("numpy",), _numpy),
    "torch": (("torch",), _torch),
    "onnxruntime": (("onnxruntime", "onnx"), _onnxruntime),
    "openvino": (("openvino",), _openvino),
    "ncnn": (("ncnn",), _ncnn),
}


def installed(name: str) -> bool:
    """True if a peer can be imported."""
    return all(find_spec(module) for module in PEERS[name][0])


def peer(name: str, operands: Operands, threads: int) -> Contestant | None:
    """Set a peer up; None if it cannot do this layer."""
    return PEERS[name][1](operands, threads) if operands.plain else None
