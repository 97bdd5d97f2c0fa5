"""IO binding and chained networks: the code GPUs run, here with tensors on the CPU."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import ModelError
from ildsdk.runtime import networks, ort_optimized
from ildsdk.runtime.assignment import check_assignment, operators_by_provider, record_assignment
from ildsdk.runtime.device_session import DeviceChain, DeviceSession, chain_of
from ildsdk.runtime.ort_session import open_session
from ildsdk.settings import RuntimeSettings
from ildsdk.stopping import never_stop
from tests.bundle_factory import EMBEDDING_SIZE, GRID, INPUT_SIZE, N_DEEP, write_tiny_bundle

Arrays = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_maps=True)


def raw_session(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    record_assignment(options)
    return ort.InferenceSession(
        str(model), sess_options=options, providers=["CPUExecutionProvider"]
    )


def on_cpu(model: Path, batch_max: int | None = None) -> DeviceSession:
    return DeviceSession(raw_session(model), "cpu", device="cpu", batch_max=batch_max)


def random_inputs(seed: int, batch: int = 1) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.random((batch, 1, INPUT_SIZE, INPUT_SIZE), np.float32),
        "radiomics": rng.normal(size=(batch, 102)).astype(np.float32),
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_device_session_agrees_with_a_plain_one(bundle: Bundle, batch: int) -> None:
    device, plain = (
        on_cpu(bundle.backbone),
        open_session(bundle.backbone, RuntimeSettings(provider="cpu"), 1),
    )
    assert dict(device.input_shapes) == dict(plain.input_shapes)
    assert dict(device.output_shapes) == dict(plain.output_shapes)
    names = ["feature_map", "deep_features"]
    for seed in range(3):  # the addresses are used again
        inputs = {"image": random_inputs(seed, batch)["image"]}
        found, expected = device.run_all(names, inputs), plain.run_all(names, inputs)
        assert [one.shape for one in found] == [(batch, N_DEEP, GRID, GRID), (batch, N_DEEP)]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_results_are_copies_that_the_next_run_leaves_alone(bundle: Bundle) -> None:
    session = on_cpu(bundle.backbone)
    first = session.run_all(["deep_features"], {"image": random_inputs(0)["image"]})[0]
    kept = first.copy()
    session.run_all(["deep_features"], {"image": random_inputs(1)["image"]})
    np.testing.assert_array_equal(first, kept)


def test_inputs_need_not_be_contiguous(bundle: Bundle) -> None:
    session = on_cpu(bundle.backbone)
    image = random_inputs(0)["image"]
    turned = np.asfortranarray(image)
    np.testing.assert_array_equal(
        *(session.run_all(["deep_features"], {"image": one})[0] for one in (image, turned))
    )


def test_what_does_not_fit_is_refused(bundle: Bundle) -> None:
    session = on_cpu(bundle.backbone, batch_max=2)
    with pytest.raises(ModelError, match=r"outputs \['deep_features', 'feature_map'\], exp"):
        session.run_all(["embedding"], {"image": random_inputs(0)["image"]})
    with pytest.raises(ModelError, match="failed while running on 'cpu'"):
        session.run_all(["deep_features"], {"image": np.ones((1, 1, 8, 8), np.float32)})
    with pytest.raises(ModelError, match="failed while running on 'cpu'"):
        session.run_all(["deep_features"], {})
    with pytest.raises(ModelError, match=r"batch of 3 .*at most 2; .*--batch-max 3"):
        session.run_all(["deep_features"], {"image": random_inputs(0, batch=3)["image"]})


def test_a_chain_is_both_networks(bundle: Bundle) -> None:
    backbone, fusion = on_cpu(bundle.backbone), on_cpu(bundle.fusion)
    chain = DeviceChain(backbone, fusion)
    assert set(chain.input_shapes) == {"image", "radiomics"}
    assert set(chain.output_shapes) == {"deep_features", "feature_map", "embedding"}
    for seed in range(3):
        inputs = random_inputs(seed)
        embedding, feature_map = chain.run_all(["embedding", "feature_map"], inputs)
        late = chain.run_all(
            ["embedding"],
            {"image": inputs["image"]},
            late=functools.partial(dict, radiomics=inputs["radiomics"]),
        )
        np.testing.assert_array_equal(late[0], embedding)
        expected = apart(bundle, inputs)
        np.testing.assert_array_equal(embedding, expected[0])
        np.testing.assert_array_equal(feature_map, expected[1])


def apart(bundle: Bundle, inputs: Arrays) -> list[npt.NDArray[np.float32]]:
    """Embedding and feature map through host memory."""
    settings = RuntimeSettings(provider="cpu")
    deep, feature_map = open_session(bundle.backbone, settings, 1).run_all(
        ["deep_features", "feature_map"], {"image": inputs["image"]}
    )
    return [
        open_session(bundle.fusion, settings, 1).run_all(
            ["embedding"], {"deep_features": deep, "radiomics": inputs["radiomics"]}
        )[0],
        feature_map,
    ]


def test_nothing_passes_through_the_host(bundle: Bundle) -> None:
    backbone, fusion = on_cpu(bundle.backbone), on_cpu(bundle.fusion)
    DeviceChain(backbone, fusion)
    head, tail = backbone.fixed_run(), fusion.fixed_run()
    assert head is not None
    assert tail is not None
    address = head.outputs["deep_features"].data_ptr()
    assert tail._inputs["deep_features"].data_ptr() == address


def test_a_chain_refuses_other_inputs(bundle: Bundle) -> None:
    chain = DeviceChain(on_cpu(bundle.backbone), on_cpu(bundle.fusion))
    inputs = random_inputs(0)
    for wrong in (
        {"image": inputs["image"]},
        random_inputs(0, batch=2),
        {**inputs, "more": inputs["image"]},
        {**inputs, "image": inputs["image"].astype(np.float64)},
    ):
        with pytest.raises(ModelError, match="the networks take"):
            chain.run_all(["embedding"], wrong)
    with pytest.raises(ModelError, match="the networks take"):
        chain.run_all(["locations"], inputs)


def test_a_network_of_a_chain_still_runs_alone(bundle: Bundle) -> None:
    backbone, fusion = on_cpu(bundle.backbone), on_cpu(bundle.fusion)
    chain = DeviceChain(backbone, fusion)
    chain.run_all(["embedding"], random_inputs(0))
    inputs = random_inputs(1)
    deep = backbone.run_all(["deep_features"], {"image": inputs["image"]})[0]
    passed = {"deep_features": deep, "radiomics": inputs["radiomics"]}
    embedding = fusion.run_all(["embedding"], passed)[0]
    np.testing.assert_array_equal(embedding, apart(bundle, inputs)[0])
    # Not what still lies at the shared address:
    with pytest.raises(ModelError, match="failed while running"):
        fusion.run_all(["embedding"], {"radiomics": inputs["radiomics"]})


def test_only_networks_that_pass_something_on_are_chained(bundle: Bundle) -> None:
    backbone = on_cpu(bundle.backbone)
    with pytest.raises(ModelError, match="cannot be chained"):
        DeviceChain(backbone, on_cpu(bundle.backbone))
    plain = open_session(bundle.fusion, RuntimeSettings(provider="cpu"), 1)
    assert chain_of(backbone, plain) is None
    assert isinstance(chain_of(backbone, on_cpu(bundle.fusion)), DeviceChain)


def test_many_threads_give_the_serial_answers(bundle: Bundle) -> None:
    chain = DeviceChain(on_cpu(bundle.backbone), on_cpu(bundle.fusion))
    inputs = [random_inputs(seed) for seed in range(24)]
    serial = [chain.run_all(["embedding"], one)[0] for one in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: chain.run_all(["embedding"], one)[0], inputs))
    np.testing.assert_array_equal(found, serial)


def test_an_encoder_on_device_sessions(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder's own way through a chain, device tensors standing in for a GPU's."""
    features = np.random.default_rng(0).normal(size=102)
    image = random_inputs(5)["image"]

    def embed(encoder: Encoder) -> tuple[npt.NDArray[np.float32], list[str]]:
        from ildsdk.encoder import _StageClock

        clock = _StageClock()
        found = encoder._fused(
            encoder._networks, image, lambda: (features, 0.0), clock, True, never_stop
        )
        assert found.locations is not None
        return np.concatenate([found.embedding, found.locations.ravel()]), list(clock.laps_ms)

    expected = embed(Encoder(bundle, RuntimeSettings(provider="cpu")))
    for home, name in ((networks, "open_session"), (ort_optimized, "open_optimized")):
        monkeypatch.setattr(home, name, lambda model, *_, **__: on_cpu(model))
    encoder = Encoder(bundle, RuntimeSettings(provider="cpu"))
    assert encoder._networks._chain is not None
    found = embed(encoder)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1] == ["backbone", "radiomics", "fusion", "explain"]
    assert found[0].size == EMBEDDING_SIZE * (1 + GRID * GRID)


def test_where_the_operators_went(bundle: Bundle) -> None:
    session = raw_session(bundle.backbone)
    assert operators_by_provider(session) == {
        "CPUExecutionProvider": {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1}
    }
    check_assignment(session, "cpu", bundle.backbone)
    with pytest.raises(ModelError, match="products 1 on CPUExecutionProvider would run elsewhere"):
        check_assignment(session, "cuda", bundle.backbone)
