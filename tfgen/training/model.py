"""The base of all systems: a `keras.Model` with players, stateless noise and its own step loop.

A system overrides `train_step` and `test_step` and, where several networks play against each
other, `players`. This class does what is the same for all: each player's optimiser, scaling of
losses over replicas and for float16, clipping, the moving average of the weights, noise that is a
function of (seed, step, replica), and the compiled loop that both `fit` and `tfgen.train` run.
"""

import copy
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgen import stateless

_TRAIN, _TEST = 0, 1  # Folded into the seed, so that the two never share noise.
_AVERAGE = "average_"  # Begins the names of moving averages in Keras' files.
_NOT_TAKEN = {  # Arguments of Keras' `compile`.
    "loss": "its losses are its own",
    "metrics": "its logs are its own",
    "weighted_metrics": "its logs are its own",
    "run_eagerly": "call tf.config.run_functions_eagerly(True) instead",
}


class GenerativeModel(keras.Model):
    """A model that trains by `train_step(batch) -> logs` with one optimiser a player.

    Subclasses must be given built networks (a `keras.Sequential` wants a `keras.Input` first), so
    that every optimiser can be built in `compile` and nothing is missing from a checkpoint.

    Attributes:
        needs: keys of the batch that the model uses.
        criterion: the log of `test_step` that early stopping watches, lower being better; None: no
            log tells how good the model is, as in a game.
        seed: int, source of all noise. Set by `compile`.
        step: int64 scalar `tf.Variable`, training steps done so far.
        stage: the stage of the training that `train_step` is traced for, int; see `stage_starts`.
        optimizers: dict of player's name -> optimiser. Set by `compile`.
        means: running means of the logs since `reset_metrics`.
        run_steps: function of an endless iterator and a number of steps; trains so many in the
            graph and returns the logs of each. Set by `compile`.
    """

    needs: tuple[str, ...] = ("image",)
    criterion: str | None = None

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.stage = 0
        self.seed = 0
        self.optimizers: dict[str, keras.optimizers.Optimizer] = {}
        self.averages: list[tf.Variable] = []
        self._ema_decay: float | None = None
        self._context = threading.local()
        self.means = RunningMeans()
        self.run_steps: Callable[[Iterator, int], list[dict[str, float]]]
        self.train_function: Any = None
        self.test_function: Any = None

    # What a system may override.

    def players(self) -> dict[str, list[keras.Variable]]:
        """Which optimiser trains which variables: name of the player -> its variables.

        Every trainable variable belongs to exactly one player. By default there is one player,
        "model", with all of them.
        """
        return {"model": self.trainable_variables}

    def extra_steps(self, step: Any) -> Any:
        """How many `extra_step`s come before train step `step`; default: none.

        This is how a critic is trained more often than its generator. In `tfgen.train` every extra
        step has a batch of its own; in `fit` they share the batch of the train step, with other
        noise.

        Args:
            step: integers of any shape, counted from 0: a tensor or an array.

        Returns:
            An int, or integers that broadcast with `step`.
        """
        return 0

    def extra_step(self, batch: dict[str, tf.Tensor]) -> None:
        """What is done `extra_steps` times before a train step."""
        raise NotImplementedError(f"{type(self).__name__} has extra steps and no extra_step")

    def stage_starts(self) -> tuple[int, ...]:
        """Steps, rising, at which another stage of the training begins; default: none.

        `train_step` is traced anew for each stage, in which `self.stage` is 0, 1, ...: players may
        learn one after the other and logs have other names.
        """
        return ()

    def batches_before(self, step: int) -> int:
        """Batches that the first `step` train steps take, extra steps included."""
        return step + int(np.sum(np.broadcast_to(self.extra_steps(np.arange(step)), [step])))

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Sets what depends on the data before step 0, e.g. biases, for `adapt`; default: nothing.

        Args:
            batches: the training split once, in fixed order.
        """

    def evidence(self, batch: dict[str, tf.Tensor]) -> Any:
        """What the evaluations of `metrics` hand a model of a batch; default: its images [B, ...].

        It is the first argument of `importance_terms`, `posterior_means` and `factors`. A model of
        images given something else returns a dict of what it needs, tensors [B, ...].
        """
        return batch["image"]

    def settle(self, batches: Callable[[], Iterable[dict[str, tf.Tensor]]]) -> None:
        """Sets what depends on the weights and the data before the model is used; default: nothing.

        Called before validations and pictures and at the end of the training. What it sets must be
        among the weights, and no train step may depend on it.

        Args:
            batches: gives the training split once, in fixed order, at each call.
        """

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """What is wrong with the training by the means of its logs; default: nothing.

        Nothing is mended: each finding is logged as a warning.

        Args:
            logs: means of the train logs since the last look.

        Returns:
            Name of what was found, e.g. "mode collapse" -> the numbers that say so.
        """
        return {}

    def animations(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """What moves within one model, e.g. the steps of a drawing; default: nothing.

        Args:
            batch: of validation examples, as for `pictures`.
            seed: int; the same seed gives the same animations.

        Returns:
            Name -> frames of a grid of images, float32 [frames, rows, columns, H, W, C] in [0, 1].
            A name is of no picture.
        """
        return {}

    def translations(self) -> dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
        """What a user's images can be put through, one by one; default: nothing.

        Returns:
            Name of an endpoint -> function (images [B, H, W, C] of any size and in the system's
            range, seed int32 scalar) -> images of the same size in [-1, 1].
        """
        return {}

    def add_state(
        self, name: str, shape: tuple[int, ...], initializer: str = "zeros"
    ) -> keras.Variable:
        """A weight that no player trains, in float32 whatever the precision, e.g. for `adapt`."""
        return self.add_weight(
            shape=shape, initializer=initializer, trainable=False, autocast=False, name=name
        )

    # Before step 0.

    def compile(
        self,
        optimizer: Any = "adam",
        *,
        seed: int = 0,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        jit_compile: bool = False,
        steps_per_execution: int = 1,
        **optimizers: Any,
    ) -> None:
        """Gives each player its optimiser and builds it.

        Keras' callbacks that change a step size change that of the first player alone; a schedule
        can be given to each.

        Args:
            optimizer: for a model with one player: a Keras optimiser or its name.
            seed: int, source of all noise.
            clip_norm: gradients of a player are clipped to this global norm; None is off.
            ema_decay: decay of the moving average of the trainable weights; None is off. The model
                itself keeps the weights that it trains: sample, evaluate and save it inside
                `with model.averaged_weights():`.
            jit_compile: compile the step by XLA. With several replicas it is left off, because
                their all-reduce cannot be inside an XLA cluster.
            steps_per_execution: steps a call of the train function.
            **optimizers: for a model with several players: one optimiser each, by player's name.

        Raises:
            ValueError: if a player has no optimiser or that of another one, a name is no player's,
                or a network is not built.
        """
        foreign = sorted(optimizers.keys() & _NOT_TAKEN.keys())
        if foreign:
            raise ValueError(
                f"compile() of {self.name} takes no {foreign[0]}: {_NOT_TAKEN[foreign[0]]}. "
                f"Received: {foreign[0]}={optimizers[foreign[0]]!r}"
            )
        for layer in self._flatten_layers(include_self=False):
            if not layer.built:
                raise ValueError(
                    f"{self.name} needs built networks. Received: {layer.name} "
                    f"({type(layer).__name__}) is not built; give it a keras.Input or call build()"
                )
        players = self.players()
        given = (
            dict(optimizers) if set(players) != {"model"} else {"model": optimizer, **optimizers}
        )
        if set(given) != set(players):
            raise ValueError(
                f"compile() of {self.name} takes one optimiser for each player {sorted(players)}. "
                f"Received: {sorted(given)}"
            )
        made = [id(o) for o in given.values() if isinstance(o, keras.optimizers.Optimizer)]
        if len(set(made)) < len(made):
            raise ValueError(
                f"compile() of {self.name} takes an optimiser of its own for each player. "
                f"Received: the same one for two of {sorted(players)}"
            )
        self._check_players(players)
        with self.distribute_strategy.scope():
            self.optimizers = {
                player: self._build_optimizer(given[player], variables, clip_norm)
                for player, variables in players.items()
            }
            self.averages = []
            if ema_decay is not None:
                self.averages = [
                    tf.Variable(v, trainable=False, name=v.path) for v in self.trainable_variables
                ]
        self.seed = seed
        self._ema_decay = ema_decay
        super().compile(
            optimizer=next(iter(self.optimizers.values())),
            jit_compile=jit_compile and self.distribute_strategy.num_replicas_in_sync == 1,
            steps_per_execution=steps_per_execution,
            auto_scale_loss=False,
        )
        self.make_train_function(force=True)
        self.make_test_function(force=True)

    def adapt(self, batches: tf.data.Dataset) -> None:
        """Sets what depends on the data, e.g. biases, after `compile` and before `fit`.

        Args:
            batches: the training split once, in fixed order.

        Raises:
            ValueError: if the model is not compiled, so that it has no seed to draw by.
        """
        if not self.optimizers:
            raise ValueError(f"{self.name} must be compiled before adapt: call compile() first")
        self.adapt_to(batches)
        self.restart_averages()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Does nothing: a loaded model is compiled by whoever trains it on."""

    def get_compile_config(self) -> dict[str, Any]:
        """Returns nothing: optimisers are in the checkpoints, not in `.keras` files."""
        return {}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras, without the optimisers, which Keras would write: twice the weights."""
        hidden = {n: getattr(self, n, None) for n in ("optimizers", "optimizer", "averages")}
        self.optimizers, self.optimizer, self.averages = {}, None, []
        try:
            super().save(*args, **kwargs)
        finally:
            for name, value in hidden.items():
                setattr(self, name, value)

    def save_own_variables(self, store: Any) -> None:
        """As in Keras, and step and moving averages, which no layer has.

        `.keras` files have no averages, like no optimisers.
        """
        super().save_own_variables(store)
        store["step"] = self.step.numpy()
        for index, average in enumerate(self.averages):
            store[f"{_AVERAGE}{index:04d}"] = average.numpy()

    def load_own_variables(self, store: Any) -> None:
        """What `save_own_variables` wrote; what is not in the file, or not here, is left alone."""
        found = {key: store[key] for key in store.keys()}
        if "step" in found:
            self.step.assign(np.asarray(found.pop("step")))
        averages = [found.pop(key) for key in list(found) if key.startswith(_AVERAGE)]
        if self.averages and averages:
            for average, value in zip(self.averages, averages, strict=True):
                average.assign(np.asarray(value))
        super().load_own_variables(found)

    def _check_players(self, players: Mapping[str, list[keras.Variable]]) -> None:
        owners: dict[int, list[str]] = {id(v): [] for v in self.trainable_variables}
        paths = {id(v): v.path for v in self.trainable_variables}  # which need not be unique
        for player, variables in players.items():
            for variable in variables:
                paths[id(variable)] = variable.path
                owners.setdefault(id(variable), []).append(player)
        wrong = {key: names for key, names in owners.items() if len(names) != 1}
        if wrong:
            key, names = next(iter(wrong.items()))
            raise ValueError(
                f"every trainable variable belongs to exactly one player. Received: {paths[key]} "
                f"belongs to {names or 'none'}"
            )

    def _build_optimizer(
        self, optimizer: Any, variables: list[keras.Variable], clip_norm: float | None
    ) -> keras.optimizers.Optimizer:
        optimizer = keras.optimizers.get(optimizer)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if clip_norm is not None:
            _inner(optimizer).global_clipnorm = clip_norm
        halves = any(layer.compute_dtype == "float16" for layer in self._flatten_layers())
        if halves and not scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)
        return optimizer

    # For use inside `train_step` and `test_step`.

    def noise_seed(self, salt: int = 0, *, shared: bool = False) -> tf.Tensor:
        """Seed for stateless draws, int32 [2]: a function of (seed, step, replica, salt).

        In `test_step` the batch's position takes the place of the step, and in `extra_step` its
        position among the extra steps is folded in as well.

        Args:
            salt: int below 1024, tells the draws of one step apart.
            shared: whether it is one seed for all replicas.
        """
        phase = getattr(self._context, "phase", _TRAIN)
        replica = None if shared else tf.distribute.get_replica_context()
        replica_id = tf.cast(replica.replica_id_in_sync_group if replica else 0, tf.int64)
        index = getattr(self._context, "index", None)
        index = self.current_step if index is None else tf.cast(index, tf.int64)
        base = tf.stack([tf.constant(self.seed, tf.int64), index])
        extra = getattr(self._context, "extra", None)
        if extra is not None:
            base = stateless.fold_in(base, extra)
        key = (replica_id * 2 + phase) * 1024 + salt
        return tf.cast(stateless.fold_in(base, key), tf.int32)

    @property
    def current_step(self) -> tf.Tensor:
        """The number of training steps done, int64 scalar; for schedules."""
        index = getattr(self._context, "index", None)
        training = index is not None and self._context.phase == _TRAIN
        return tf.cast(index if training else self.step, tf.int64)

    @contextmanager
    def _noise_of(
        self, phase: int, index: tf.Tensor, extra: tf.Tensor | None = None
    ) -> Iterator[None]:
        # Replicas are traced in threads that take turns, hence thread-local.
        context = self._context
        context.phase, context.index, context.extra = phase, index, extra
        try:
            yield
        finally:
            context.phase, context.index, context.extra = _TRAIN, None, None

    def minimize(
        self, player: str, loss: tf.Tensor, tape: tf.GradientTape, when: tf.Tensor | None = None
    ) -> None:
        """Moves one player's variables down the gradient of `loss`; no other variable moves.

        Args:
            player: name of the player.
            loss: scalar, the mean over this replica's examples; it is divided by the number of
                replicas here, and nowhere else.
            tape: the tape that recorded `loss`.
            when: bool scalar, equal on all replicas; where it is false the player and its optimiser
                stay as they are. None moves always.
        """
        self.apply_gradients(player, lambda scale: self._gradients(player, loss, tape, scale), when)

    def _gradients(
        self, player: str, loss: tf.Tensor, tape: tf.GradientTape, scale: tf.Tensor
    ) -> list[tf.Tensor]:
        variables = self.players()[player]
        grads = tape.gradient(loss, variables, output_gradients=tf.cast(scale, loss.dtype))
        # A variable is read before it moves. TensorFlow's graph optimiser loses that order where a
        # gradient does not depend on what was read, as in the last layer of a critic.
        with tf.control_dependencies([loss]):
            return [None if grad is None else tf.identity(grad) for grad in grads]

    def apply_gradients(
        self,
        player: str,
        gradients: Callable[[tf.Tensor], list[tf.Tensor]],
        when: tf.Tensor | None = None,
    ) -> None:
        """Like `minimize`, for gradients that no single `tape.gradient` call gives.

        Args:
            player: name of the player.
            gradients: function of a scalar that returns the gradients of (scalar * loss) in the
                order of the player's variables.
            when: as for `minimize`.
        """
        optimizer = self.optimizers[player]
        replicas = self.distribute_strategy.num_replicas_in_sync
        scale = tf.constant(1.0 / replicas)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if scaled:
            scale = optimizer.scale_loss(scale)
        grads = gradients(scale)
        clip_norm = _inner(optimizer).global_clipnorm
        # What is clipped, or searched for an overflow on one replica, is the sum over replicas, of
        # which each hands in its part: too small for the optimiser to clip it again.
        if replicas > 1 and (scaled or clip_norm is not None):
            replica = tf.distribute.get_replica_context()
            grads = replica.all_reduce(tf.distribute.ReduceOp.SUM, grads)
            if clip_norm is not None:
                factor = optimizer.dynamic_scale.value if scaled else 1.0
                grads, _ = tf.clip_by_global_norm(grads, clip_norm * factor)
            grads = [g / replicas for g in grads]
        variables = self.players()[player]
        if when is None:
            optimizer.apply(grads, variables)
            return
        # Replicas cannot meet inside a condition, so the move is made and, if need be, undone.
        moving = [*variables, *optimizer.variables]
        before = [tf.identity(v.value) for v in moving]
        optimizer.apply(grads, variables)

        def undo(strategy: tf.distribute.Strategy, old: list, when: Any) -> None:
            for variable, value in zip(moving, old, strict=True):
                strategy.extended.update(
                    variable.value, lambda v, o, w: v.assign(tf.where(w, v, o)), args=(value, when)
                )

        tf.distribute.get_replica_context().merge_call(undo, args=(before, when))

    # The loop in the graph, used by `fit`, `evaluate` and `tfgen.training.loop`.

    def make_train_function(self, force: bool = False) -> Callable:
        """The function that `fit` calls: `steps_per_execution` steps, returns running means."""
        if self.train_function is not None and not force:
            return self.train_function
        strategy = self.distribute_strategy
        alone = strategy.num_replicas_in_sync == 1
        jit = self.jit_compile or None
        # As in Keras' own loop a step is plain code: rewriting its Python by AutoGraph would take a
        # third of the time to the first step.
        replica_step, replica_extra_step = (
            tf.function(f, autograph=False, jit_compile=jit)
            for f in (self._replica_train_step, self._replica_extra_step)
        )
        names: dict[int, list[str]] = {}  # Of a stage's logs, known once its step is traced.

        def one_step(next_batch: Callable[[], Any], stage: int) -> tf.Tensor:
            step = tf.identity(self.step)
            extra_steps = self.extra_steps(step)
            if not isinstance(extra_steps, int) or extra_steps > 0:
                for extra in tf.range(tf.cast(extra_steps, tf.int64)):
                    strategy.run(replica_extra_step, args=(next_batch(), step, extra, stage))
            logs = strategy.run(replica_step, args=(next_batch(), step, stage))
            self._update_averages()
            self.step.assign_add(1)
            names[stage] = list(logs)
            return tf.stack([strategy.reduce("MEAN", v, axis=None) for v in logs.values()])

        @tf.function(reduce_retracing=True)
        def execute(iterator: Any, steps: tf.Tensor, stage: int) -> tf.Tensor:
            rows = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None])
            for row in tf.range(steps):
                rows = rows.write(row, one_step(lambda: next(iterator), stage))
            return rows.stack()

        @tf.function(reduce_retracing=True)
        def execute_to_end(iterator: Any, steps: tf.Tensor, stage: int) -> tf.Tensor:
            rows = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None])
            for row in tf.range(steps):
                batch = iterator.get_next_as_optional()
                if not batch.has_value():
                    break
                rows = rows.write(row, one_step(batch.get_value, stage))
            return rows.stack()

        @tf.function(reduce_retracing=True)
        def execute_batch(batch: Any, one: tf.Tensor, stage: int) -> tf.Tensor:
            return one_step(lambda: batch, stage)[tf.newaxis]

        def by_stage(function: Callable, source: Any, steps: int) -> list[dict[str, float]]:
            """Logs of `steps` steps, or fewer at the source's end; a call is of one stage."""
            found: list[dict[str, float]] = []
            while len(found) < steps:
                self.stage, left = self._stage_at(int(self.step.numpy()))
                wanted = min(steps - len(found), left)
                rows = function(source, tf.constant(wanted), self.stage).numpy().tolist()
                found += [dict(zip(names[self.stage], row, strict=True)) for row in rows]
                if len(rows) < wanted:
                    break
            return found

        def run_steps(iterator: Iterator, steps: int) -> list[dict[str, float]]:
            return by_stage(execute, iterator, steps)

        def run_to_end(iterator: Iterator, steps: int) -> list[dict[str, float]]:
            if alone and isinstance(iterator, tf.data.Iterator):
                return by_stage(execute_to_end, iterator, steps)
            # TensorFlow cannot run several replicas inside a condition, and a step that finds no
            # batch has moved the step counters before it fails. `train_on_batch` has a generator.
            found = []
            for batch in itertools.islice(iterator, steps):
                self._check_shares(batch)
                found += by_stage(execute_batch, batch, 1)
            return found

        def train_function(iterator: Iterator) -> dict[str, float]:
            rows = run_to_end(iterator, self.steps_per_execution)
            if not rows:
                raise StopIteration
            for logs in rows:
                self.means.update(logs)
            return self.means.result()

        self.run_steps, self.train_function = run_steps, train_function
        return train_function

    def make_test_function(self, force: bool = False) -> Callable:
        """The function that `evaluate` calls: `steps_per_execution` batches, running means."""
        if self.test_function is not None and not force:
            return self.test_function
        strategy = self.distribute_strategy

        @tf.function(reduce_retracing=True, autograph=False)
        def execute(iterator: Any, index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            logs, examples = strategy.run(self._replica_test_step, args=(next(iterator), index))
            total = strategy.reduce("SUM", examples, axis=None)
            return {k: strategy.reduce("SUM", v, axis=None) / total for k, v in logs.items()}, total

        def test_function(iterator: Iterator) -> dict[str, float]:
            for batch in range(self.steps_per_execution):
                try:
                    logs, examples = execute(iterator, tf.constant(self.means.updates, tf.int64))
                except (StopIteration, tf.errors.OutOfRangeError):
                    if batch == 0:
                        raise
                    break
                self.means.update(logs, float(examples))
            return self.means.result()

        self.test_function = test_function
        return test_function

    def _check_shares(self, batch: Any) -> None:
        """Whether each replica has an example of a batch to train on.

        Raises:
            ValueError: if one has none; its mean loss would be NaN.
        """
        shares = self.distribute_strategy.experimental_local_results(tf.nest.flatten(batch)[0])
        sizes = [len(share) for share in shares]
        if 0 in sizes:
            raise ValueError(
                "each replica must have an example of every batch: batch with drop_remainder=True. "
                f"Received: {sizes} examples on {len(sizes)} replicas"
            )

    def _stage_at(self, step: int) -> tuple[int, int]:
        """The stage of a step, and how many steps are left of it from there."""
        starts = self.stage_starts()
        stage = sum(start <= step for start in starts)
        return stage, starts[stage] - step if stage < len(starts) else sys.maxsize

    def _replica_train_step(self, batch: Any, step: tf.Tensor, stage: int) -> dict[str, tf.Tensor]:
        """A train step; `stage` is `self.stage`, by which functions of TensorFlow are traced."""
        with self._noise_of(_TRAIN, step):
            return self._scalars(self.train_step(self.as_batch(batch)))

    def _replica_extra_step(
        self, batch: Any, step: tf.Tensor, extra: tf.Tensor, stage: int
    ) -> None:
        with self._noise_of(_TRAIN, step, extra):
            self.extra_step(self.as_batch(batch))

    def _replica_test_step(
        self, batch: Any, index: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Logs summed over this replica's examples, which may be none, and their number."""
        batch = self.as_batch(batch)
        examples = tf.cast(tf.shape(batch[self.needs[0]])[0], tf.float32)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            # Kernels need not take a batch of none: a blank example, which has no weight.
            batch = {key: _at_least_one(value) for key, value in batch.items()}
        with self._noise_of(_TEST, index):
            logs = self._scalars(self.test_step(batch))
        return {k: tf.math.multiply_no_nan(v, examples) for k, v in logs.items()}, examples

    def as_batch(self, data: Any) -> dict[str, tf.Tensor]:
        """The dict of tensors that `train_step` takes, from what Keras' `fit` hands over.

        A dict is taken as it is, its floating-point tensors as float32; a tensor or a tuple (x, y)
        is named by `needs`, in order.

        Raises:
            ValueError: if a key of `needs` is missing, images are integers, or examples are
                weighted.
        """
        parts = data if isinstance(data, (tuple, list)) else (data,)
        if len(parts) > max(2, len(self.needs)) and parts[-1] is not None:
            raise ValueError(f"{self.name} takes no sample weights. Received: a third part of data")
        data = parts[0]  # a dict, with or without targets beside it
        if not isinstance(data, Mapping):
            data = {k: v for k, v in zip(self.needs, parts, strict=False) if v is not None}
        for key in self.needs:
            if key not in data:
                raise ValueError(
                    f"{self.name} needs the batch keys {list(self.needs)}. Received: {list(data)}"
                )
        batch = {key: tf.convert_to_tensor(value) for key, value in data.items()}
        for key in self.needs:
            if batch[key].dtype.is_integer and len(batch[key].shape) > 2:
                raise ValueError(
                    f"{key!r} must be floating-point numbers in the range that the model is for, "
                    f"as [0, 1] or [-1, 1]. Received: {batch[key].dtype.name}"
                )
        return {k: tf.cast(v, tf.float32) if v.dtype.is_floating else v for k, v in batch.items()}

    def get_metrics_result(self) -> dict[str, float]:
        """The running means of the logs, which `fit` and `evaluate` report."""
        return self.means.result()

    def reset_metrics(self) -> None:
        """Starts the running means of the logs anew."""
        super().reset_metrics()
        self.means.reset()

    @staticmethod
    def _scalars(logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        return {name: tf.cast(value, tf.float32) for name, value in logs.items()}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Does nothing: networks and optimisers are built in `compile` already."""

    # Moving average of the weights.

    def restart_averages(self) -> None:
        """Sets the moving averages, where there are any, to the weights as they are."""
        for average, variable in zip(self.averages, self.trainable_variables, strict=False):
            average.assign(variable)

    def _update_averages(self) -> None:
        if self._ema_decay is None:
            return
        rate = 1.0 - self._ema_decay
        for average, variable in zip(self.averages, self.trainable_variables, strict=True):
            self.distribute_strategy.extended.update(
                average, lambda a, v: a.assign_sub(rate * (a - v)), args=(variable.value,)
            )

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Inside, the trainable weights are their moving averages, where there are any."""
        if not self.averages:
            yield
            return
        live = [v.numpy() for v in self.trainable_variables]
        try:
            for variable, average in zip(self.trainable_variables, self.averages, strict=True):
                variable.assign(average.numpy())
            yield
        finally:
            for variable, value in zip(self.trainable_variables, live, strict=True):
                variable.assign(value)

    # The state of a training, for checkpoints.

    def state_variables(self) -> dict[str, Any]:
        """Every variable that decides the rest of a training, by a name that is unique.

        Names hold positions and no automatic names of layers, which depend on what else the
        process has built.
        """
        named = {"step": self.step}
        named |= {f"model/{i:03d}/{v.name}": v for i, v in enumerate(self.variables)}
        named |= {f"average/{i:03d}": v for i, v in enumerate(self.averages)}
        for player, optimizer in self.optimizers.items():
            named |= {f"optimizer/{player}/{i:03d}": v for i, v in enumerate(optimizer.variables)}
        return named


def deserialize(config: dict[str, Any]) -> Any:
    """A network or layer from its config, which Keras would empty if it is a functional model's."""
    return keras.saving.deserialize_keras_object(copy.deepcopy(config))


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """What makes the moves: of an optimiser that scales losses, the one inside."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _at_least_one(value: tf.Tensor) -> tf.Tensor:
    """[B, ...] as it is, or [1, ...] of zeros for B = 0."""
    missing = tf.maximum(1 - tf.shape(value)[:1], 0)
    blank = tf.zeros(tf.concat([missing, tf.shape(value)[1:]], 0), value.dtype)
    return tf.concat([value, blank], 0)


class RunningMeans:
    """Means of logs on the host, in float64; their state is a part of a checkpoint."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self.sums: dict[str, float] = {}
        self.weight = 0.0
        self.updates = 0

    def update(self, logs: Mapping[str, Any], weight: float = 1.0) -> None:
        """Adds the logs of one step, or means over `weight` examples.

        Logs with other names, of another stage of the training, start anew.
        """
        if self.sums and self.sums.keys() != logs.keys():
            self.reset()
        for name, value in logs.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(np.float64(value)) * weight
        self.weight += weight
        self.updates += 1

    def result(self) -> dict[str, float]:
        """Means of everything since the last reset."""
        return {name: value / self.weight for name, value in self.sums.items()}
