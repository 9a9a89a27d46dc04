"""Data sets by name -> tf.data of dict batches, with fixed splits and an order that can resume."""

from tfgen.data.dataset import Data, load, names
from tfgen.data.spec import DataError, DataSpec

__all__ = ["Data", "DataError", "DataSpec", "load", "names"]
