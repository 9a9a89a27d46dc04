"""The same numbers as torch-fidelity and prdc from the same features."""

import importlib
import importlib.util
import sys
import types
from unittest import mock

import numpy as np
import pytest

from tfgen.metrics import fidelity, neighbours

_VISION = ("", ".datasets", ".transforms", ".transforms.functional", ".models")


def _torch_fidelity(name: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """One of its modules. They import torchvision for networks of which nothing is used here."""
    pytest.importorskip("torch", reason="torch-fidelity needs torch: pip install torch==2.13.0")
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity==0.4.0")
    if importlib.util.find_spec("torchvision") is None:
        for module in _VISION:
            monkeypatch.setitem(sys.modules, f"torchvision{module}", mock.MagicMock())
    return importlib.import_module(f"torch_fidelity.{name}")


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    """Real and generated ones, of unequal numbers, float32 as networks give them."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    real = np.maximum(rng.normal(size=(500, 12)) @ mix, 0)
    fake = np.maximum(rng.normal(0.3, 0.9, size=(400, 12)) @ mix, 0)
    return real.astype(np.float32), fake.astype(np.float32)


def test_fid(features: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = _torch_fidelity("metric_fid", monkeypatch)
    import torch

    real, fake = (
        oracle.fid_features_to_statistics(torch.from_numpy(f.astype(np.float64))) for f in features
    )
    expected = oracle.fid_statistics_to_metric(real, fake, verbose=False)
    assert fidelity.fid(*features) == pytest.approx(
        expected["frechet_inception_distance"], rel=1e-9
    )


def test_kid(features: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = _torch_fidelity("metric_kid", monkeypatch)
    import torch

    expected = oracle.kid_features_to_metric(
        *(torch.from_numpy(f.astype(np.float64)) for f in features),
        kid_subsets=20,
        kid_subset_size=100,
        rng_seed=7,
        verbose=False,
    )
    # The same subsets: both draw them from RandomState(seed), real ones first.
    found = fidelity.kid(*features, subsets=20, subset_size=100, seed=7)
    assert found == pytest.approx(
        (expected["kernel_inception_distance_mean"], expected["kernel_inception_distance_std"]),
        rel=1e-9,
    )


def test_inception_score(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = _torch_fidelity("metric_isc", monkeypatch)
    import torch

    logits = np.random.default_rng(1).normal(size=(505, 10)) * 3
    expected = oracle.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    assert fidelity.inception_score(logits) == pytest.approx(
        (expected["inception_score_mean"], expected["inception_score_std"]), rel=1e-9
    )


def test_precision_recall(features: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = _torch_fidelity("metric_prc", monkeypatch)
    import torch

    real, fake = (torch.from_numpy(f.astype(np.float64)) for f in features)
    expected = oracle.prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=128, save_cpu_ram=True, verbose=False
    )
    # It takes its means in float32.
    assert neighbours.precision_recall(*features) == pytest.approx(
        (expected["precision"], expected["recall"]), abs=1e-6
    )


def test_density_coverage(features: tuple) -> None:
    prdc = pytest.importorskip("prdc", reason="not installed: pip install prdc==0.2")
    real, fake = (f.astype(np.float64) for f in features)
    expected = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    assert neighbours.density_coverage(real, fake) == pytest.approx(
        (expected["density"], expected["coverage"]), abs=1e-12
    )
    # No two distances are equal, so < and <= are the same.
    assert neighbours.precision_recall(real, fake, k=5) == pytest.approx(
        (expected["precision"], expected["recall"]), abs=1e-12
    )
