"""What a data set is, apart from its examples: names, shapes, ranges, sizes, errors."""

import dataclasses
import json
from typing import Any

from tfgen.errors import UserError

SPLITS = ("train", "validation", "test")
IMAGE_RANGES = ("unit", "symmetric", "binary", "uint8")
BINARIZATIONS = ("dynamic", "fixed", "threshold")


class DataError(UserError):
    """One line on what is wrong with the data asked for or found."""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a model needs to know of a data set to be built without it.

    Attributes:
        name: the data set as given by `--data`.
        shapes: shape of one example for each batch key, e.g. {"image": (28, 28, 1), "label": ()}.
        dtypes: dtype name for each batch key, e.g. {"image": "float32", "label": "int32"}.
        image_range: "unit" [0, 1], "symmetric" [-1, 1], "binary" {0, 1}, "uint8" 0..255.
        num_classes: labels are 0..num_classes-1; None without labels.
        train_size: number of training examples.
        validation_size: number of validation examples.
        test_size: number of test examples.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    image_range: str
    num_classes: int | None
    train_size: int
    validation_size: int
    test_size: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        if "image" not in self.shapes:
            raise DataError(
                f"Data set {self.name!r} has no key 'image'; it gives {', '.join(self.shapes)}."
            )
        height, width, channels = self.shapes["image"]
        return height, width, channels

    def to_json(self) -> str:
        """This spec as one JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "DataSpec":
        """The spec that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields["shapes"] = {key: tuple(shape) for key, shape in fields["shapes"].items()}
        return cls(**fields)
