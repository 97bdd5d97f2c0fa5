"""A graph that reads files outside its bundle is refused, whatever ONNX Runtime would do."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ildsdk.bundle import Bundle, onnx_files
from ildsdk.bundle.onnx_files import ExternalData, external_data
from ildsdk.errors import ModelError
from tests.bundle_factory import replace_file, write_tiny_bundle

MEMORY_MARKER = "*/_ORT_MEM_ADDR_/*"  # by which ONNX Runtime itself marks an address
HOSTILE = ("../secret", "/etc/passwd", "./backbone.onnx", "", "fusion.onnx", MEMORY_MARKER)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder, with_int8=True, with_symmetric=True)
    return folder


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "copy")


def external(location: str, name: str = "stolen", **more: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.INT8, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "8", **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def put_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def put_unused_location(model: onnx.ModelProto, tensor: TensorProto) -> None:
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


def put_sparse(model: onnx.ModelProto, tensor: TensorProto) -> None:
    indices = numpy_helper.from_array(np.arange(8), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [8]))


def put_constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=tensor))


def put_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [tensor])
    model.graph.node.append(
        helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    )


def put_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["stolen"], value=tensor)
    model.functions.append(
        helper.make_function("own", "f", [], ["stolen"], [node], [helper.make_opsetid("", 17)])
    )


def put_training(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


PLACES = (
    put_initializer, put_unused_location, put_sparse, put_constant, put_subgraph, put_function,
    put_training,
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["backbone.onnx", "backbone-int8.onnx", "backbone-int8-symmetric.onnx", "fusion.onnx"]
)
@pytest.mark.parametrize("location", HOSTILE)
def test_a_location_outside_is_refused(copy: Path, name: str, location: str) -> None:
    model = onnx.load(copy / name, load_external_data=False)
    put_initializer(model, external(location))
    replace_file(copy, name, model.SerializeToString())
    with pytest.raises(ModelError, match=f"{name} refers to data in"):
        Bundle.open(copy)


@pytest.mark.parametrize("put", PLACES)
def test_wherever_the_tensor_hides(
    copy: Path, put: Callable[[onnx.ModelProto, TensorProto], None]
) -> None:
    model = onnx.load(copy / "backbone.onnx")
    put(model, external("../secret"))
    replace_file(copy, "backbone.onnx", model.SerializeToString())
    with pytest.raises(ModelError, match=r"refers to data in '../secret', expected no external"):
        Bundle.open(copy)


def test_the_backbone_refers_to_nothing_not_even_itself(copy: Path) -> None:
    model = onnx.load(copy / "backbone.onnx")
    put_initializer(model, external("backbone.onnx"))
    replace_file(copy, "backbone.onnx", model.SerializeToString())
    with pytest.raises(ModelError, match="expected no external data"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "tensor",
    [
        external("backbone.onnx", offset="-8"),
        external("backbone.onnx", offset="+1"),
        external("backbone.onnx", offset="99999999999"),
        external("backbone.onnx", basepath="/"),
        external("backbone.onnx", length=""),
    ],
    ids=lambda tensor: str(tensor.external_data[-1].value),
)
def test_external_data_that_could_be_read_two_ways_are_refused(
    copy: Path, tensor: TensorProto
) -> None:
    model = onnx.load(copy / "backbone-int8.onnx", load_external_data=False)
    put_initializer(model, tensor)
    replace_file(copy, "backbone-int8.onnx", model.SerializeToString())
    with pytest.raises(ModelError, match="not a well-formed ONNX file"):
        Bundle.open(copy)


def test_a_key_given_twice_is_refused(copy: Path) -> None:
    tensor = external("backbone.onnx")
    tensor.external_data.add(key="location", value="../secret")
    model = onnx.load(copy / "backbone-int8.onnx", load_external_data=False)
    put_initializer(model, tensor)
    replace_file(copy, "backbone-int8.onnx", model.SerializeToString())
    with pytest.raises(ModelError, match="without exactly location, offset, length"):
        Bundle.open(copy)


def test_a_value_given_twice_in_one_entry_is_refused(tmp_path: Path) -> None:
    """Protobuf takes the last of two; a checker that took the first would be fooled."""
    entry = b"\x0a\x08location\x12\x0dbackbone.onnx\x12\x09../secret"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    parsed = onnx.load(path, load_external_data=False).graph.initializer[0]
    assert parsed.external_data[0].value == "../secret"
    with pytest.raises(ValueError, match="one key and one value"):
        list(external_data(path))


def test_a_compiled_engine_is_refused(copy: Path) -> None:
    model = onnx.load(copy / "backbone.onnx")
    model.graph.node.append(
        helper.make_node("EPContext", [], ["x"], domain="com.microsoft", embed_mode=1)
    )
    replace_file(copy, "backbone.onnx", model.SerializeToString())
    with pytest.raises(ModelError, match="operator EPContext"):
        Bundle.open(copy)


def test_finds_what_onnx_finds(intact: Path) -> None:
    path = intact / "backbone-int8.onnx"
    model = onnx.load(path, load_external_data=False)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.external_data)
    values = {entry.key: entry.value for entry in weight.external_data}
    expected = ExternalData(values["location"], int(values["offset"]), int(values["length"]))
    assert list(external_data(path)) == [expected]


def test_the_ways_to_a_tensor_are_those_of_onnx() -> None:
    """A newer ONNX that keeps tensors in a new place shows here."""
    names = {
        "ModelProto": "model", "TrainingInfoProto": "training", "FunctionProto": "function",
        "GraphProto": "graph", "NodeProto": "node", "AttributeProto": "attribute",
        "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip

    def holds_tensors(message: Descriptor, seen: frozenset[str]) -> bool:
        if message.name == "TensorProto":
            return True
        return message.name not in seen and any(
            field.message_type is not None
            and holds_tensors(field.message_type, seen | {message.name})
            for field in message.fields
        )

    found: dict[str, dict[int, str]] = {}
    pending = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if names[message.name] in found:
            continue
        ways = found.setdefault(names[message.name], {})
        for field in message.fields:
            inner = field.message_type
            if field.name == "external_data":
                ways[field.number] = "entry"
            elif inner is not None and holds_tensors(inner, frozenset()):
                ways[field.number] = names[inner.name]
                pending.append(inner)
    assert found == onnx_files._WAYS


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_end_in_an_answer_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "model.onnx"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert all(isinstance(data, ExternalData) for data in external_data(path))


def test_an_empty_file_is_a_typed_error(copy: Path) -> None:
    replace_file(copy, "backbone-int8.onnx", b"")
    with pytest.raises(ModelError, match="it is empty"):
        Bundle.open(copy)
