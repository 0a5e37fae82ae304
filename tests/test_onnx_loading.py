"""Files, bytes and protos; and those that are damaged or hostile: one `ModelError` each, and nothing read outside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")

from onnx import TensorProto, helper  # noqa: E402
from onnx_calls import model, node, uniform  # noqa: E402

import convkit.onnx as door  # noqa: E402

W = uniform(4, 8, 3, 3)
X = uniform(2, 8, 9, 11)


def conv() -> Any:
    return model([node("Conv", "x w", "y")], {"w": W})


def refused(proto: Any, *words: str) -> None:
    """The model is not loaded, and the message has these words."""
    with pytest.raises(door.ModelError) as caught:
        door.InferenceSession(proto)
    for word in words:
        assert word in str(caught.value)


def test_a_path_bytes_and_a_proto_are_the_same_model(tmp_path: Path) -> None:
    proto = conv()
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    before = proto.SerializeToString()
    results = [
        door.InferenceSession(given).run(None, {"x": X})[0]
        for given in (path, str(path), proto, path.read_bytes(), bytearray(path.read_bytes()))
    ]
    assert all(np.array_equal(results[0], result) for result in results)
    assert proto.SerializeToString() == before
    with pytest.raises(TypeError, match=r"must be a path, bytes or an onnx\.ModelProto, not int"):
        door.InferenceSession(3)
    with pytest.raises(FileNotFoundError):
        door.InferenceSession(tmp_path / "none.onnx")


def test_every_truncation_is_told() -> None:
    data = conv().SerializeToString()
    for length in (0, 1, 2, 10, *range(20, len(data) - 1, 97)):
        refused(data[:length])


def test_noise_is_told() -> None:
    rng = np.random.default_rng(0)
    data = conv().SerializeToString()
    for _ in range(200):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = int(rng.integers(0, 256))
        # A damaged name or type of the input is told by the feed.
        with contextlib.suppress(door.ModelError, ValueError, TypeError):
            door.InferenceSession(bytes(damaged)).run(None, {"x": X})


def test_names_that_nobody_defines() -> None:
    refused(model([node("Conv", "x w", "y")]), "'w'", "Conv_y")
    refused(model([node("Relu", "x", "z")]), "output 'y'")
    refused(model([node("Relu", "x", "y"), node("Neg", "x", "y")]), "'y' is defined twice")


def test_circles() -> None:
    refused(model([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")]))


def test_nodes_in_any_order_run() -> None:
    session = door.InferenceSession(model([node("Relu", "a", "y"), node("Neg", "x", "a")]))
    assert np.array_equal(session.run(None, {"x": X})[0], np.maximum(-X, 0))


@pytest.mark.parametrize(
    ("dims", "raw"),
    [([4, 8, 3, 3], b"\0" * 100), ([1 << 40, 1 << 40], b""), ([-1, 4], b"\0" * 16), ([1 << 62, 1 << 62, 0], b"\0")],
)
def test_sizes_that_are_not_those_of_the_data(dims: list[int], raw: bytes) -> None:
    proto = conv()
    tensor = proto.graph.initializer[0]
    tensor.raw_data = raw
    tensor.dims[:] = dims
    refused(proto, "tensor w")
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])
    refused(proto, "tensor w")


def test_sizes_that_no_memory_has() -> None:
    nodes = [node("ConstantOfShape", "n", "a"), node("Add", "a x", "y")]
    session = door.InferenceSession(model(nodes, {"n": np.array([1 << 31, 1 << 31])}))
    with pytest.raises(door.ModelError, match=r"ConstantOfShape.*larger than this machine's memory"):
        session.run(None, {"x": X})
    session = door.InferenceSession(model([node("Expand", "x n", "y")], {"n": np.array([1 << 40, 1, 1, 1, 1])}))
    with pytest.raises(door.ModelError, match="Expand"):
        session.run(None, {"x": X})


def test_wrong_ranks() -> None:
    session = door.InferenceSession(model([node("Conv", "x w", "y")], {"w": W[0]}))
    with pytest.raises(door.ModelError, match=r"node Conv_y .*\[2, 8, 9, 11\], \[8, 3, 3\]"):
        session.run(None, {"x": X})
    session = door.InferenceSession(model([node("Reshape", "x n", "y")], {"n": np.array([7, 7])}))
    with pytest.raises(door.ModelError, match="node Reshape_y"):
        session.run(None, {"x": X})


def test_operators_that_nobody_knows() -> None:
    proto = model([helper.make_node("Dream", ["x"], ["y"], domain="elsewhere")])
    proto.opset_import.append(helper.make_opsetid("elsewhere", 1))
    refused(proto, "elsewhere Dream")
    refused(model([node("NoSuchOperator", "x", "y")]), "NoSuchOperator")


# External data


def external(location: str, **entries: str) -> Any:
    """The convolution with its filters in another file."""
    proto = conv()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return proto


def saved(folder: Path, proto: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_within_the_folder(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(b"12345678" + W.tobytes())
    path = saved(tmp_path, external("weights/w.bin", offset="8", length=str(W.nbytes)))
    found = door.InferenceSession(path).run(None, {"x": X})[0]
    assert np.array_equal(found, door.InferenceSession(conv()).run(None, {"x": X})[0])


def test_external_data_elsewhere_is_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(W.tobytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    for location in ("../secret.bin", str(secret), "link.bin", "none.bin", "", ".", "/dev/zero", "/proc/self/environ"):
        refused(saved(folder, external(location)), "within the model's folder", repr(location))
    os.mkfifo(folder / "pipe")
    refused(saved(folder, external("pipe")), "within the model's folder")
    (folder / "w.bin").write_bytes(W.tobytes())
    for data in (external("w.bin"), external("w.bin").SerializeToString(), external(str(secret))):
        refused(data, "only beside a model that is given as a path")


@pytest.mark.parametrize(
    "entries", [{"offset": "4"}, {"length": "99999"}, {"offset": "-4"}, {"offset": "much"}, {"length": "4"}]
)
def test_pieces_of_external_data_that_are_not_there(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    refused(saved(tmp_path, external("w.bin", **entries)), "tensor w")


def test_external_data_in_attributes_and_branches() -> None:
    inner = external("/etc/hostname").graph.initializer[0]
    refused(model([helper.make_node("Constant", [], ["y"], value=inner)]), "only beside a model")
    branch = helper.make_graph(
        [node("Relu", "x", "r")], "branch", [], [helper.make_empty_tensor_value_info("r")], [inner]
    )
    proto = model([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], {"c": np.array(True)})
    refused(proto, "only beside a model")
