"""tfgen: reference implementations of deep generative models in TensorFlow and Keras 3."""

__version__ = "0.1.0"
