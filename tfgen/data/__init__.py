"""Data sets by name -> tf.data of dict batches, with fixed splits and an order that can resume."""

from tfgen.data.dataset import Data, load, names
from tfgen.data.spec import DataError, DataSpec
from tfgen.jitter import Jitter

__all__ = ["Data", "DataError", "DataSpec", "Jitter", "load", "names"]
