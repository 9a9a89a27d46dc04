"""`tf.distribute` strategies by name.

What is guaranteed with several workers ("multiworker": one process each, the cluster and the task
in `TF_CONFIG`):
  * They share one run directory, on a file system that all of them see. The first worker alone
    writes checkpoints, metrics and pictures; all read the newest checkpoint when they start.
  * All end with the same weights. The same flags and workers give the same run again, stopped or
    not; to the bit for two workers on CPUs.
  * If one worker dies, the others cannot go on: TensorFlow tells them within a minute or so, and
    they end with exit status 1. When all are started again, each by the same command, the run goes
    on from its newest checkpoint. Starting only the dead one again is not enough.
  * SIGTERM to one worker is like its death, but that the first worker leaves a checkpoint.
"""

import functools
import os

import tensorflow as tf

from tfgen.errors import UserError

NAMES = ("auto", "none", "mirrored", "multiworker", "tpu")


def make(name: str, devices: int | None = None) -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: "auto" (several workers where `TF_CONFIG` is set, mirrored where there is more than
            one GPU, else none), "none", "mirrored", "multiworker" or "tpu".
        devices: for "mirrored": how many devices; None takes all GPUs, or else all logical CPUs.

    Raises:
        UserError: if the machine lacks what the strategy needs.
    """
    if name == "multiworker" or (name == "auto" and os.environ.get("TF_CONFIG")):
        # Before anything that lists devices: afterwards TensorFlow takes no cluster any more.
        if not os.environ.get("TF_CONFIG"):
            raise UserError(
                "--strategy=multiworker needs the environment variable TF_CONFIG with the cluster "
                "and this worker's task; it is not set"
            )
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except ValueError as error:  # among them those of JSON
            raise UserError(
                "the environment variable TF_CONFIG must hold the cluster and this worker's task "
                f"in JSON: {error}. Received: TF_CONFIG={os.environ['TF_CONFIG']}"
            ) from error
    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "none"
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        except ValueError as error:
            raise UserError(f"--strategy=tpu found no TPU: {error}") from error
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    found = gpus or tf.config.list_logical_devices("CPU")
    if devices is not None and devices > len(found):
        raise UserError(
            f"--strategy=mirrored with {devices} devices needs as many GPUs (or logical CPUs). "
            f"Found: {len(found)}"
        )
    return _mirrored(tuple(d.name for d in found[:devices]))


def mean_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The mean of each replica's value, in a train step; outside of replicas the value."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value
    return replica.all_reduce(tf.distribute.ReduceOp.MEAN, value)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy a process for the same devices.

    A second one would count its collectives from the same number as the first, and TensorFlow
    would stop at two of different shapes.
    """
    return tf.distribute.MirroredStrategy(list(devices))


def logical_cpus(count: int) -> None:
    """Splits the CPU into logical devices, to try mirrored training without GPUs.

    Must be called before TensorFlow touches its devices.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    )
