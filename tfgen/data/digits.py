"""scikit-learn's handwritten digits as a TFDS data set: 1,797 grey images of 8x8, no download.

Importing this module defines, and so registers, the TFDS builder.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfgen.data.spec import DataError

_SIZES = {"train": 1397, "validation": 100, "test": 300}
_CITATION = """@misc{alpaydin1998optical,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  publisher = {UCI Machine Learning Repository},
  year = {1998},
}"""


class Digits(tfds.core.GeneratorBasedBuilder):
    """The test set of the UCI digits, as scikit-learn carries it, split by a fixed permutation."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Handwritten digits of 8x8 pixels; 17 grey levels, spread to 0..255.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
            citation=_CITATION,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
        # RandomState and not default_rng: NumPy promises that its numbers never change.
        order = np.random.RandomState(0).permutation(len(grey))
        ends = np.cumsum(list(_SIZES.values()))[:-1]
        parts = dict(zip(_SIZES, np.split(order, ends), strict=True))
        return {
            split: self._generate_examples(grey, digits.target, part)
            for split, part in parts.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices.tolist():
            yield index, {"image": images[index], "label": int(labels[index])}


def builder(data_dir: str | None) -> Digits:
    """The builder with its data prepared under `data_dir` (None: TFDS' default).

    Any number of processes may prepare at once: TFDS writes to a folder of its own for each and
    renames it; who comes second finds the name taken, and uses what is there.
    """
    where = data_dir or os.fspath(tfds.core.constants.DATA_DIR)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        os.makedirs(where, exist_ok=True)
        digits = Digits(data_dir=data_dir)
        try:
            digits.download_and_prepare(download_config=config)
        except Exception:  # another process may have been faster; else it is raised again
            digits = Digits(data_dir=data_dir)
            if not digits.info.splits:
                raise
    except OSError as error:
        raise DataError(
            f"Cannot prepare data set 'digits' in {where!r}: {error}. Give a writable --data_dir."
        ) from error
    return digits
