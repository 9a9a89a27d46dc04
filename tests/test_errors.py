"""A `ValueError` of tfgen's own is a user's line; one from elsewhere keeps its traceback."""

import numpy as np
import pytest

from tfgen import errors
from tfgen.networks.made import made


def test_one_of_tfgen() -> None:
    with pytest.raises(errors.UserError, match="order must be a permutation"), errors.one_line():
        made(3, (8,), order=[0, 0, 1])


def test_one_from_elsewhere() -> None:
    with pytest.raises(ValueError, match="reshape"), errors.one_line():
        np.zeros(3).reshape(2)


def test_another_error() -> None:
    with pytest.raises(KeyError), errors.one_line():
        {}["x"]
