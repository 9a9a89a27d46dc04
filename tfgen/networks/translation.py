"""What the networks of image translation share: initial weights and normalisations by name."""

from collections.abc import Callable, Iterator
from typing import Literal

import keras

from tfgen.layers.instance_normalization import (
    BatchStatisticsNormalization,
    InstanceNormalization,
)

Norm = Literal["batch", "instance", "none"]
NORMS: dict[str, Callable[[], keras.layers.Layer] | None] = {
    "batch": BatchStatisticsNormalization,
    "instance": InstanceNormalization,
    "none": None,
}


def initializers(seed: int) -> Iterator[keras.initializers.Initializer]:
    """N(0, 0.02), another draw for each layer."""
    while True:
        seed += 1
        yield keras.initializers.RandomNormal(stddev=0.02, seed=seed)
