"""`InferenceSession` as programs use it: what it says of a model, what it takes and gives, shapes, threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")

from onnx import helper  # noqa: E402
from onnx_calls import close, model, node, ops, plain, uniform  # noqa: E402
from shims import fresh  # noqa: E402

import convkit as ck  # noqa: E402
import convkit.onnx as door  # noqa: E402

W = uniform(8, 8, 3, 3)
X = uniform(2, 8, 9, 11)


def session(*nodes: Any, constants: Any = None, **keywords: Any) -> door.InferenceSession:
    return door.InferenceSession(model(nodes, constants, **keywords))


def test_it_says_what_a_model_has() -> None:
    proto = model([node("Relu", "x", "y")], shape=("N", 8, -1, 11))
    proto.producer_name, proto.model_version, proto.graph.doc_string = "tests", 3, "A picture."
    entry = proto.metadata_props.add()
    entry.key, entry.value = "character", "abc"
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 8, None, 11]))
    found = door.InferenceSession(
        proto, door.SessionOptions(), providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert [(a.name, a.type, a.shape) for a in found.get_inputs()] == [("x", "tensor(float)", ["N", 8, None, 11])]
    assert [(a.name, a.type, a.shape) for a in found.get_outputs()] == [("y", "tensor(float)", ["N", 8, None, 11])]
    meta = found.get_modelmeta()
    assert (meta.producer_name, meta.version, meta.graph_name, meta.description) == ("tests", 3, "graph", "A picture.")
    assert meta.custom_metadata_map == {"character": "abc"}
    assert found.get_providers() == door.get_available_providers() == ["CPUExecutionProvider"]
    assert door.get_device() == "CPU"
    assert found.run(["y"], {"x": X}, door.RunOptions())[0].shape == X.shape


def test_only_the_cpu_is_here() -> None:
    with pytest.raises(ValueError, match="must name CPUExecutionProvider"):
        door.InferenceSession(model([node("Relu", "x", "y")]), providers=["CUDAExecutionProvider"])


def test_feeds_that_do_not_fit_are_told_by_name() -> None:
    found = session(node("Add", "a b", "y"), inputs={"a": (np.float32, (2, "n")), "b": (np.float32, ())})
    a, b = np.ones((2, 3), np.float32), np.float32(1)
    assert found.run(None, {"a": a, "b": b})[0].tolist() == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(ValueError, match=r"inputs \['b'\] are missing"):
        found.run(None, {"a": a})
    with pytest.raises(ValueError, match=r"no input 'c': the model's inputs are \['a', 'b'\]"):
        found.run(None, {"a": a, "b": b, "c": b})
    with pytest.raises(TypeError, match=r"input 'a' must be float32 \(tensor\(float\)\), not float64"):
        found.run(None, {"a": a.astype(float), "b": b})
    with pytest.raises(ValueError, match=r"input 'a' must have shape \[2, 'n'\], not \[3, 2\]"):
        found.run(None, {"a": a.T.copy(), "b": b})
    with pytest.raises(ValueError, match=r"input 'b' must have shape \[\], not \[1\]"):
        found.run(None, {"a": a, "b": b.reshape(1)})
    with pytest.raises(TypeError, match="input_feed must be a dict of name to array, not list"):
        found.run(None, [a, b])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no output 'z': the model's outputs are \['y'\]"):
        found.run(["z"], {"a": a, "b": b})


def test_initializers_that_are_inputs_may_be_fed() -> None:
    proto = model([node("Conv", "x w", "c"), node("Relu", "c", "y")], {"w": W})
    proto.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, W.shape))
    found = door.InferenceSession(proto)
    assert [a.name for a in found.get_inputs()] == ["x"]
    assert [a.name for a in found.get_overridable_initializers()] == ["w"]
    first = found.run(None, {"x": X})
    close(found.run(None, {"x": X, "w": 2 * W}), [2 * first[0]])
    close(found.run(None, {"x": X}), first)
    proto.ir_version = 3  # where they had to be listed
    found = door.InferenceSession(proto)
    assert found.get_overridable_initializers() == []
    assert ops(found) == ["FusedConv"]


@pytest.mark.parametrize("op", ["Identity", "Transpose", "Relu", "Reshape"])
def test_results_are_nobody_elses(op: str) -> None:
    nodes = [node(op, "x n" if op == "Reshape" else "x", "y"), node("Identity", "y", "z"), node("Identity", "k", "w")]
    found = session(*nodes, constants={"n": np.array([0, -1]), "k": W}, outputs="y z w")
    x = X.copy()
    first = found.run(None, {"x": x})
    kept = [a.copy() for a in first]
    assert all(a.flags.c_contiguous for a in first)
    for array in (x, *first):
        array += 1
    for a, b in zip(found.run(None, {"x": X}), kept, strict=True):
        assert np.array_equal(a, b)
    assert all(np.array_equal(a, b + 1) for a, b in zip(first, kept, strict=True))


SHAPES = [
    node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
    node("Shape", "c", "s"),
    node("Slice", "s zero two zero", "n"),
    node("Concat", "n rest", "m", axis=0),
    node("Reshape", "c m", "y"),
]
NUMBERS = {"w": W, "zero": np.array([0]), "two": np.array([2]), "rest": np.array([-1])}


def test_shapes_are_computed_once_for_each_shape() -> None:
    found = session(*SHAPES, constants=NUMBERS, shape=("n", 8, "h", "w"))
    assert ops(found) == ["Conv", "Shape", "Slice", "Concat", "Reshape"]
    for height in (5, 6, 5, 6, 7):
        x = uniform(2, 8, height, 9)
        assert found.run(None, {"x": x})[0].shape == (2, 8, height * 9)
    assert {tuple(step.op for step in plan.steps) for plan in found._plans._plans.values()} == {("Conv", "Reshape")}


def test_shapes_that_data_decides_are_computed_every_time() -> None:
    nodes = [node("NonZero", "x", "i"), node("Shape", "i", "n"), node("Cast", "n", "y", to=1)]
    found = session(*nodes, shape=("n",))
    for x in ([1, 0, 1], [1, 1, 1], [0, 0, 0]):
        assert found.run(None, {"x": np.float32(x)})[0].tolist() == [1, sum(x)]


def test_plans_are_bounded() -> None:
    found = session(*SHAPES, constants=NUMBERS, shape=("n", 8, "h", "w"))
    for width in range(3, 90):
        found.run(None, {"x": uniform(1, 8, 3, width)})
    assert len(found._plans._plans) == 64


def test_values_are_freed_after_their_last_use() -> None:
    found = session(node("Neg", "x", "a"), node("Exp", "a", "b"), node("Add", "a b", "y"))
    steps = found._plans.general.steps
    assert [len(step.frees) for step in steps] == [1, 0, 2]


def test_outputs_without_a_name_are_nobodys_inputs() -> None:
    nodes = [node("MaxPool", "x", "- i", kernel_shape=[2, 2]), node("Cast", "i", "f", to=1), node("Clip", "f - h", "y")]
    (places,) = session(*nodes[:2], outputs="f").run(None, {"x": X})
    found = session(*nodes, constants={"h": np.float32(90)})
    for _ in range(2):
        close(found.run(None, {"x": X}), [np.minimum(places, 90)])


def test_a_session_holds_its_weights_once(tmp_path: Path) -> None:
    script = """
        import sys
        import numpy as np
        import convkit.onnx as door

        def resident():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) >> 10

        before = resident()
        options = door.SessionOptions()
        options.add_session_config_entry("convkit.memory", "low")
        session = door.InferenceSession(sys.argv[1], options)
        print(resident() - before)
    """
    w = uniform(512, 512, 8, 8)  # 64 MiB
    path = tmp_path / "model.onnx"
    path.write_bytes(model([node("Conv", "x w", "y")], {"w": w}, shape=(1, 512, 9, 9)).SerializeToString())
    assert int(fresh(script, str(path))) < 64 * 1.5


def test_branches_read_values_from_around_them() -> None:
    def branch(op: str) -> Any:
        return helper.make_graph([node(op, "a", f"{op}_r")], op, [], [helper.make_empty_tensor_value_info(f"{op}_r")])

    nodes = [
        node("Neg", "x", "a"),
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Exp")),
    ]
    found = session(*nodes, constants={"zero": np.float32(0)})
    for x in (np.abs(X), -np.abs(X)):
        expected = np.maximum(-x, 0) if x.sum() > 0 else np.exp(-x)
        close(found.run(None, {"x": x}), [expected])


def test_local_functions() -> None:
    body = [node("Conv", "a w", "c"), node("Relu", "c", "b")]
    function = helper.make_function("here", "Block", ["a", "w"], ["b"], body, [helper.make_opsetid("", 17)])
    proto = model([helper.make_node("Block", ["x", "w"], ["y"], domain="here")], {"w": W})
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("here", 1))
    found = door.InferenceSession(proto)
    assert ops(found) == ["FusedConv"]
    direct = session(*body, constants={"w": W}, inputs={"a": (np.float32, X.shape)}, outputs="b")
    close(found.run(None, {"x": X}), direct.run(None, {"a": X}))


def test_many_threads_may_run_one_session() -> None:
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "a"), node("Add", "a x", "y")]
    found = session(*nodes, constants={"w": W}, shape=("n", 8, "h", "w"))
    images = [uniform(1, 8, 9, width, seed=width) for width in range(5, 13)]
    wanted = [door.InferenceSession(model(nodes, {"w": W}, shape=x.shape), plain()).run(None, {"x": x}) for x in images]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in np.random.default_rng(seed).integers(0, len(images), 40):
                close(found.run(None, {"x": images[i]}), wanted[i])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


CONSTANTS_IN_TURN = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn about forks with threads
import numpy as np
import convkit as ck, convkit.onnx as door
sys.path.insert(0, sys.argv[1])
from onnx_calls import model, node
square, filters = np.eye(8, dtype=np.float32), np.ones((8, 8, 3, 3), np.float32)
graphs = {
    "Conv": ([node("Conv", "x w", "y")], {"w": filters}),
    "ConvTranspose": ([node("ConvTranspose", "x w", "y")], {"w": filters}),
    "MatMul": ([node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("MatMul", "t w", "y")], {"w": square}),
    "ConvInteger": (
        [node("Cast", "x", "u", to=2), node("ConvInteger", "u w", "y")], {"w": np.ones((8, 8, 3, 3), np.uint8)}
    ),
}
parent, made, begun, go_on = os.getpid(), [], threading.Event(), threading.Event()
def slow(kind):
    def layer(*given, **options):
        made.append(kind.__name__)
        if os.getpid() == parent:
            begun.set()
            assert go_on.wait(60)
        return kind(*given, **options)
    return layer
ck.Conv2d, ck.ConvTranspose2d = slow(ck.Conv2d), slow(ck.ConvTranspose2d)
session, x = door.InferenceSession(model(*graphs[sys.argv[2]])), np.ones((2, 8, 9, 11), np.float32)
found = []
threads = [threading.Thread(target=lambda: found.append(session.run(None, {"x": x})[0])) for _ in range(4)]
for thread in threads:
    thread.start()
assert begun.wait(60)
def hold():
    with session._plans._lock:
        held.set()
        go_on.wait(60)
held = threading.Event()
threads.append(threading.Thread(target=hold))
threads[-1].start()
assert held.wait(60)
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(0 if session.run(None, {"x": x})[0].size else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set()
for thread in threads:
    thread.join()
assert status == 0, status
assert len(found) == 4 and all(np.array_equal(y, found[0]) for y in found)
assert len(made) == 1, made
"""


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MatMul", "ConvInteger"])
def test_constants_are_packed_once_and_a_child_packs_its_own(op: str) -> None:
    fresh(CONSTANTS_IN_TURN, str(Path(__file__).parent), op, CONVKIT_DB=":memory:")


def test_a_profile_tells_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = session(node("Relu", "x", "y"), shape=("n", 8, "h", "w"))
    alone = ck.profile

    @contextmanager
    def overtaken() -> Iterator[Any]:
        with alone() as calls:
            yield calls
            other = threading.Thread(target=found.run, args=(None, {"x": uniform(3, 8, 20, 20)}))
            other.start()
            other.join()

    monkeypatch.setattr(ck, "profile", overtaken)
    assert [one.shape for one in found.profile({"x": X}).nodes] == [X.shape]


def test_threads_of_a_session_are_those_of_its_convolutions() -> None:
    options = door.SessionOptions(intra_op_num_threads=1)
    found = door.InferenceSession(model([node("Conv", "x w", "y")], {"w": W}), options)
    with ck.profile() as profile:
        found.run(None, {"x": X})
    assert [record.threads for record in profile.records] == [1]
    for wrong in ("a", None, 1.5):
        with pytest.raises(TypeError, match=f"intra_op_num_threads must be a whole number.*, not {wrong!r}"):
            options.intra_op_num_threads = wrong  # type: ignore[assignment]


def test_weights_are_held_once_where_memory_is_low(monkeypatch: pytest.MonkeyPatch) -> None:
    import convkit as ck

    layers: list[Any] = []

    def watched(cls: Any) -> Any:
        def made(*operands: Any, **keywords: Any) -> Any:
            layers.append(cls(*operands, **keywords))
            return layers[-1]

        return made

    for name in ("Conv2d", "ConvTranspose2d"):
        monkeypatch.setattr(ck, name, watched(getattr(ck, name)))
    nodes = [node("Conv", "x w", "c"), node("ConvTranspose", "c w", "t"), node("MatMul", "t m", "y")]
    proto = model(nodes, {"w": W, "m": uniform(11, 5)})
    options = door.SessionOptions()
    options.add_session_config_entry("convkit.memory", "low")
    found = door.InferenceSession(proto, options).run(None, {"x": X})
    low = layers.copy()
    layers.clear()
    close(found, door.InferenceSession(proto).run(None, {"x": X}))
    assert len(low) == len(layers) == 3
    assert [layer.packed_nbytes for layer in low] == [0, 0, 0]
    assert all(layer.packed_nbytes > 0 for layer in layers)
    assert all(layer.nbytes - layer.packed_nbytes < W.nbytes for layer in layers)  # the file's arrays are borrowed
    with pytest.raises(ValueError, match=r"convkit\.memory must be 'fast' or 'low', not 'none'"):
        options.add_session_config_entry("convkit.memory", "none")
