import os

import numpy as np
import pytest

from tfgen import data


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A directory in which `digits` is prepared."""
    path = os.fspath(tmp_path_factory.mktemp("tfds"))
    data.load("digits", data_dir=path)
    return path


@pytest.fixture(scope="session")
def digits(data_dir):
    """Stored pixels, so that examples compare exactly."""
    return data.load("digits", data_dir=data_dir, image_range="uint8")


@pytest.fixture(scope="session")
def toy_dir(tmp_path_factory):
    """A TFDS directory with sets made here: numbered ones, and one with images of several sizes."""
    import tensorflow_datasets as tfds

    class ToyNumbers(tfds.core.GeneratorBasedBuilder):
        """Image i of 6x4x3 starts with the bytes of i; has a validation split of its own no more
        than mnist has, and features that are not images."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(6, 4, 3)),
                "label": tfds.features.ClassLabel(num_classes=5),
                "attributes": {"Smiling": np.bool_, "Bald": np.bool_},
                "name": tfds.features.Text(),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 120), "test": self._generate_examples(1, 9)}

        def _generate_examples(self, split, count):
            for i in range(count):
                image = np.full((6, 4, 3), 100, np.uint8)
                image[0, 0] = [split, i, 255]
                attributes = {"Smiling": i % 2 == 0, "Bald": i % 3 == 0}
                yield i, {"image": image, "label": i % 5, "attributes": attributes, "name": str(i)}

    class ToySizes(tfds.core.GeneratorBasedBuilder):
        """Images of two sizes, a train split only."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(None, None, 3))}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(50):
                yield i, {"image": np.full((10 + i % 2, 8, 3), i, np.uint8)}

    path = os.fspath(tmp_path_factory.mktemp("toy"))
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    for builder in (ToyNumbers, ToySizes):
        builder(data_dir=path).download_and_prepare(download_config=config)
    return path
