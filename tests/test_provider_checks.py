"""What the doctor says of providers: it compares embeddings, and names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ildsdk import provider_checks
from ildsdk.runtime.provider_libraries import missing_for


def test_the_cpu_runs_and_absent_providers_are_named(tmp_path: Path) -> None:
    checks = {check.name: check for check in provider_checks.provider_trials(tmp_path / "engines")}
    assert checks["cpu fp32"].status == "ok"
    if "cpu int8" in checks:
        assert checks["cpu int8"].status == "ok"
        assert "cosine 0.9" in checks["cpu int8"].detail
    for provider in ("cuda", "tensorrt"):
        if missing_for(provider) is not None:
            assert checks[provider].status == "missing"
            assert "a library is missing: lib" in checks[provider].detail
            assert str(Path.home()) not in checks[provider].detail
    assert not (tmp_path / "engines").exists()


def test_another_embedding_is_a_failure() -> None:
    reference = provider_checks._embedding("cpu", "fp32", None)
    right = provider_checks._trial("cpu", "fp32", None, reference)
    assert right.status == "ok"
    assert "cosine 1.000000" in right.detail
    wrong = provider_checks._trial("cpu", "fp32", None, -reference)
    assert wrong.status == "failed"
    assert "cosine -1.000000" in wrong.detail
    assert "expected 0.9999" in wrong.detail


def test_gpu_facts_name_what_is_missing() -> None:
    checks = {check.name: check for check in provider_checks.gpu_facts()}
    if missing_for("tensorrt") is None:
        pytest.skip("TensorRT loads on this machine")
    assert checks["TensorRT"].status == "missing"
    assert "nvinfer" in checks["TensorRT"].detail
    assert checks["driver"].status in ("ok", "missing")


def test_a_damaged_engine_folder_is_told(tmp_path: Path) -> None:
    engine = tmp_path / "engines" / "fp16-b1-sm90-0"
    engine.mkdir(parents=True, mode=0o700)
    engine.parent.chmod(0o700)
    assert provider_checks._engine_state(tmp_path / "engines") == "0 engines, 0 MB"
    (engine / "engine.json").write_text("{}")
    (engine / "engine.json").chmod(0o600)
    engine.chmod(0o700)
    check = provider_checks.tried(
        "engines", "TensorRT", lambda: provider_checks._engine_state(tmp_path / "engines")
    )
    assert check.status == "failed"
    assert "is damaged" in check.detail
