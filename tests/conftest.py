"""Two logical CPUs in every test process, so that replicas can be tried without GPUs."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from tfgen.training import strategies

strategies.logical_cpus(2)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A TFDS directory in which `digits` is prepared."""
    from tfgen import data

    path = os.fspath(tmp_path_factory.mktemp("tfds"))
    data.load("digits", data_dir=path)
    return path


@pytest.fixture(autouse=True)
def _float32():
    """Leaves Keras' dtype policy as it was found, whatever precision a test trains in."""
    import keras

    yield
    keras.config.set_dtype_policy("float32")
