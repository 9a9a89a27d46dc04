"""Step sizes and weights as functions of the step, so that a resumed run continues them exactly.

Positions are parts of the whole run in [0, 1]; a run of other length keeps the shape.
"""

import keras
import tensorflow as tf

from tfgen.hparams import HParams


def learning_rate(
    hparams: HParams, total_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The step size that the flags `schedule`, `learning_rate` and `warmup_steps` describe.

    Args:
        hparams: of the run.
        total_steps: steps that the optimiser makes in the whole run.
    """
    peak = hparams.learning_rate
    makers = {
        "constant": lambda: peak,
        "stages": lambda: stages(peak, hparams.schedule_stages, total_steps),
        "piecewise": lambda: drops(peak, hparams.schedule_drops, total_steps),
        "linear": lambda: constant_then_linear(peak, hparams.decay_from, total_steps),
    }
    schedule = makers[hparams.schedule]()
    return Warmup(schedule, hparams.warmup_steps) if hparams.warmup_steps else schedule


def stages(
    peak: float, count: int, total_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Stage i = 0..count-1 lasts 3^i parts of the run at peak * 10^(-i / (count - 1)).

    With count = 8 over 1 + 3 + ... + 3^7 = 3280 epochs stage i lasts 3^i epochs at
    peak * 10^(-i/7) (Burda et al. 2016, section 5).
    """
    if count == 1:
        return peak
    whole = 3**count - 1
    ends = [round(total_steps * (3 ** (i + 1) - 1) / whole) for i in range(count - 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        _before(ends), [peak * 10 ** (-i / (count - 1)) for i in range(count)]
    )


def drops(
    peak: float, at: tuple[float, ...], total_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Divides the step size by 10 at each of the given parts of the run."""
    if not at:
        return peak
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        _before([round(total_steps * part) for part in at]),
        [peak * 10.0**-i for i in range(len(at) + 1)],
    )


def _before(ends: list[int]) -> list[int]:
    """Keras holds a value up to and including its boundary; ours end before it."""
    return [end - 1 for end in ends]


@keras.saving.register_keras_serializable("tfgen")
class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """`peak` up to step `start`, then along a line to 0 at step `end` (e.g. CycleGAN)."""

    def __init__(self, peak: float, start: int, end: int):
        super().__init__()
        self.peak, self.start, self.end = peak, start, end

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The step size at `step`, float32 scalar."""
        past = tf.cast(step, tf.float32) - self.start
        return self.peak * tf.clip_by_value(1.0 - past / (self.end - self.start), 0.0, 1.0)

    def get_config(self) -> dict:
        """Arguments of `__init__`."""
        return {"peak": self.peak, "start": self.start, "end": self.end}


def constant_then_linear(peak: float, decay_from: float, total_steps: int) -> ConstantThenLinear:
    """`ConstantThenLinear` whose line starts at the part `decay_from` of the run."""
    return ConstantThenLinear(
        peak, min(round(decay_from * total_steps), total_steps - 1), total_steps
    )


@keras.saving.register_keras_serializable("tfgen")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule times min(1, (step + 1) / steps)."""

    def __init__(
        self, schedule: float | keras.optimizers.schedules.LearningRateSchedule, steps: int
    ):
        super().__init__()
        self.schedule, self.steps = schedule, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The step size at `step`, float32 scalar."""
        base = self.schedule(step) if callable(self.schedule) else self.schedule
        return base * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / self.steps)

    def get_config(self) -> dict:
        """Arguments of `__init__`."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Warmup":
        """The schedule that `get_config` describes."""
        inner = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(inner, config["steps"])


def warmup(weight: float, steps: int, step: tf.Tensor) -> tf.Tensor | float:
    """`weight`, rising from 0 along a line over the first `steps` steps (e.g. KL annealing)."""
    if not steps:
        return weight
    return weight * tf.clip_by_value(tf.cast(step, tf.float32) / steps, 0.0, 1.0)
