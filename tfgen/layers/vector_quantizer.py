"""A layer that rounds vectors to the nearest of learnt codes."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

_SMALLEST = 1e-5  # Where a code's count stops falling, that the code keeps its place.


@dataclasses.dataclass(frozen=True)
class Quantized:
    """Vectors and the codes nearest to them.

    Attributes:
        codes: nearest codes [..., D]; their gradient is that of the vectors (straight-through).
        indices: of the codes, int32 [...].
        commitment: mean of (z - sg[e])^2 over all numbers, scalar.
        codebook: mean of (sg[z] - e)^2, whose gradient moves the codes; 0 where averages do.
        perplexity: exp of the entropy of how often each code is taken: 1 to K, scalar.
    """

    codes: tf.Tensor
    indices: tf.Tensor
    commitment: tf.Tensor
    codebook: tf.Tensor
    perplexity: tf.Tensor


@keras.saving.register_keras_serializable("tfgen")
class VectorQuantizer(keras.layers.Layer):
    """z -> e_k, k = argmin_j ||z - e_j||, with the gradient of the identity.

    The codes e_j follow the vectors that are rounded to them: by moving averages of their number
    n_j and sum m_j, e_j = m_j / n_j, or, with `decay=None`, by the gradient of a loss. For
    example 512 codes and z [32, 7, 7, 64] give [32, 7, 7, 64], of 512 different vectors at most.
    In a plain Keras model `call` adds `commitment` times the commitment loss, and the codebook's,
    to the model's losses; `nearest` returns all parts instead. Distances are found in float32
    whatever the precision. Replicas share their averages. A mask is passed on; what is masked
    counts in losses and averages too.

    Reference: A. van den Oord, O. Vinyals, K. Kavukcuoglu. Neural Discrete Representation Learning.
    NeurIPS 2017: eq. 1-3, appendix A.1 (moving averages). Restarts: P. Dhariwal et al. Jukebox: A
    Generative Model for Music. 2020, section 3.1.

    Args:
        num_codes: K, 2 or more.
        commitment: weight of the commitment loss, the paper's beta, 0 or more.
        decay: of the averages, between 0 and 1; None for the loss.
        restart_below: a code whose average number of vectors in a batch falls below it becomes one
            of the batch's vectors; 0 is never. With averages only.
        seed: int, of the initial codes and of the restarts.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        num_codes: int,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        restart_below: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if num_codes < 2:
            raise ValueError(f"num_codes must be 2 or more. Received: num_codes={num_codes}")
        if commitment < 0:
            raise ValueError(f"commitment must be 0 or more. Received: commitment={commitment}")
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1. Received: decay={decay}")
        if restart_below < 0 or (restart_below and decay is None):
            raise ValueError(
                "restart_below must be 0 or more, and 0 without decay. "
                f"Received: restart_below={restart_below}, decay={decay}"
            )
        self.num_codes, self.commitment, self.decay = num_codes, commitment, decay
        self.restart_below, self.seed = restart_below, seed

    def build(self, input_shape: tuple) -> None:
        """Makes the codes, for vectors [..., D]."""
        dimensions = input_shape[-1]
        if dimensions is None:
            raise ValueError(
                f"the last axis must be known. Received: input shape {tuple(input_shape)}"
            )
        shape = (self.num_codes, dimensions)
        limit = (3.0 / dimensions) ** 0.5
        init = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        if self.decay is None:
            self.table = self.add_weight(
                shape=shape, initializer=init, autocast=False, name="codes"
            )
            return
        average: dict[str, Any] = {  # replicas make it of the same numbers
            "trainable": False, "autocast": False, "aggregation": "only_first_replica",
        }  # fmt: skip
        self.sums = self.add_weight(shape=shape, initializer=init, name="sums", **average)
        self.counts = self.add_weight(
            shape=(self.num_codes,), initializer="ones", name="counts", **average
        )
        self.updates = self.add_weight(
            shape=(), initializer="zeros", dtype="int64", name="updates", **average
        )

    @property
    def codebook(self) -> tf.Tensor:
        """The codes, float32 [K, D]."""
        if self.decay is None:
            return tf.cast(tf.convert_to_tensor(self.table), tf.float32)
        counts = tf.convert_to_tensor(self.counts)
        return tf.convert_to_tensor(self.sums) / counts[:, tf.newaxis]

    def indices(self, inputs: tf.Tensor) -> tf.Tensor:
        """Of the nearest codes, the lowest if there are several: [..., D] -> int32 [...]."""
        codes = self.codebook
        middle = tf.reduce_mean(codes, axis=0)  # Far from 0 the products below lose their digits.
        flat, codes = self._flat(inputs) - middle, codes - middle
        # ||z||^2 is the same for all codes.
        distances = tf.reduce_sum(codes**2, axis=-1) - 2.0 * tf.matmul(
            flat, codes, transpose_b=True
        )
        nearest = tf.argmin(distances, axis=-1, output_type=tf.int32)
        return tf.reshape(nearest, tf.shape(inputs)[:-1])

    def embed(self, indices: tf.Tensor) -> tf.Tensor:
        """The codes of indices: int [...] -> float32 [..., D]."""
        return tf.gather(self.codebook, indices)

    def nearest(self, inputs: tf.Tensor, training: bool = False) -> Quantized:
        """Rounds vectors [..., D]; in training the averages take account of them afterwards."""
        z = tf.cast(inputs, tf.float32)
        indices = self.indices(z)
        codes = self.embed(indices)
        codebook = tf.zeros([])
        if self.decay is None:
            codebook = tf.reduce_mean(tf.square(tf.stop_gradient(z) - codes))
        codes = tf.stop_gradient(codes)
        commitment = tf.reduce_mean(tf.square(z - codes))
        taken = tf.reshape(indices, [-1])
        ones = tf.ones_like(taken, tf.float32)
        numbers = tf.math.unsorted_segment_sum(ones, taken, self.num_codes)
        share = numbers / tf.reduce_sum(numbers)
        if training and self.decay is not None:
            self._update(tf.stop_gradient(self._flat(z)), taken, numbers)
        return Quantized(
            codes=z + tf.stop_gradient(codes - z),
            indices=indices,
            commitment=commitment,
            codebook=codebook,
            perplexity=tf.exp(-tf.reduce_sum(tf.math.xlogy(share, share))),
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[..., D] -> [..., D], the losses added to the model's."""
        found = self.nearest(inputs, training)
        self.add_loss(self.commitment * found.commitment + found.codebook)
        return tf.cast(found.codes, self.compute_dtype)

    def _flat(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.cast(vectors, tf.float32), [-1, vectors.shape[-1]])

    def _update(self, z: tf.Tensor, taken: tf.Tensor, numbers: tf.Tensor) -> None:
        """Moves the averages by the vectors [N, D] of all replicas."""
        sums = tf.math.unsorted_segment_sum(z, taken, self.num_codes)
        # Vectors that codes may become: the first replica's.
        key = tf.stack([tf.constant(self.seed, tf.int64), tf.convert_to_tensor(self.updates)])
        chosen = tf.random.stateless_uniform(
            [self.num_codes], key, 0, tf.shape(z)[0], tf.int32, alg="philox"
        )
        others = tf.gather(z, chosen)
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            first = tf.cast(tf.equal(replica.replica_id_in_sync_group, 0), tf.float32)
            sums, numbers, others = replica.all_reduce(
                tf.distribute.ReduceOp.SUM, [sums, numbers, others * first]
            )
        decay = self.decay or 0.0
        counts = decay * tf.convert_to_tensor(self.counts) + (1.0 - decay) * numbers
        sums = decay * tf.convert_to_tensor(self.sums) + (1.0 - decay) * sums
        # Of a code that nothing takes both fall alike, until they are too small to be divided.
        kept = tf.maximum(counts, _SMALLEST)
        counts, sums = kept, sums * (kept / counts)[:, tf.newaxis]
        if self.restart_below:
            dead = counts < self.restart_below
            counts = tf.where(dead, self.restart_below, counts)
            sums = tf.where(dead[:, tf.newaxis], self.restart_below * others, sums)
        self.counts.assign(counts)
        self.sums.assign(sums)
        self.updates.assign_add(1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[..., D] -> [..., D]."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "commitment": self.commitment,
            "decay": self.decay,
            "restart_below": self.restart_below,
            "seed": self.seed,
        }
