"""What claims of the GAN family are made of: made-up numbers for which one holds, and does not."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen import hparams, train
from tfgen.data import synthetic
from tfgen.metrics import mixtures
from tfgen.networks.mlp import mlp
from tools import reproduce
from tools.claims import (
    _common,
    gan_began,
    gan_ebgan,
    gan_gan,
    gan_improved,
    gan_mdgan,
    gan_unrolled,
    gan_wgan,
    gan_wgan_gp,
    metrics_comparison,
    metrics_distances,
)
from tools.claims._base import Claim, Outcome, Outcomes

GRID = synthetic.centres("grid25").astype(np.float64)


def _outcomes(numbers: Mapping[str, Mapping[str, float]]) -> Outcomes:
    """Rows by name with their measures."""
    rows = {
        name: Outcome(name, {k: {"value": v} for k, v in measures.items()})
        for name, measures in numbers.items()
    }
    return Outcomes(rows, rows)


def _by_seed(measure: str, numbers: Mapping[str, Sequence[float]]) -> Outcomes:
    """Rows <name>_seed<seed> of one measure."""
    return _outcomes(
        {f"{n}_seed{s}": {measure: v} for n, of in numbers.items() for s, v in enumerate(of)}
    )


# Seeds.


def test_clearly_above_is_by_two_standard_errors() -> None:
    # Variance 1 each: the error of the difference is sqrt(2 / 3) = 0.816.
    assert _common.clearly_above([2.64, 3.64, 4.64], [1.0, 2.0, 3.0])
    assert not _common.clearly_above([2.63, 3.63, 4.63], [1.0, 2.0, 3.0])
    assert not _common.clearly_above([1.0, 2.0, 3.0], [2.64, 3.64, 4.64])
    assert not _common.clearly_above([5.0, 5.0, 5.0], [5.0, 5.0, 5.0])


LITTLE, MUCH, NONE = (10.0, 14.0, 12.1), (14.0, 16.0, 15.0), (10.0, 12.0, 11.0)


@pytest.mark.parametrize(
    ("claim", "measure", "more", "less"),
    [
        (gan_improved.more_modes, "modes_covered", ("minibatch_grid25",), "plain_grid25"),
        (functools.partial(gan_ebgan.has_a_higher_score, data="mnist"),
         "inception_score_mnist_classifier", ("ebgan_pt_mnist",), "ebgan_mnist"),
        (functools.partial(gan_ebgan.makes_classes_more_evenly, data="mnist"),
         "class_reverse_kl", ("ebgan_mnist",), "ebgan_pt_mnist"),
        (gan_unrolled.modes_of_stacked_digits, "modes_covered", ("stacked_mnist_K5",),
         "stacked_mnist_K0"),
        (functools.partial(gan_began.distance_rises, gammas=gan_began.GAMMAS),
         "sample_distance", ("gamma0.5", "gamma0.7"), "gamma0.3"),
        (functools.partial(gan_began.recall_rises, gammas=gan_began.HIGHER),
         "recall_digits_classifier", ("gamma0.8", "gamma0.9"), "gamma0.7"),
    ],
)  # fmt: skip
def test_a_mean_that_is_hardly_higher_is_not_higher(
    claim: Callable[[Outcomes], Claim], measure: str, more: Sequence[str], less: str
) -> None:
    def holds(higher: Sequence[float]) -> bool:
        numbers = {less: NONE}
        for step, name in enumerate(more):
            numbers[name] = tuple(v + 4 * step for v in higher)
        rows = {f"features_grid25_seed{seed}": {measure: 1.0} for seed in range(3)}
        rows |= {n: {measure: o.value(measure)} for n, o in _by_seed(measure, numbers).items()}
        for row in rows.values():  # that a claim only tells
            told = {"high_quality": 0.5, "mode_reverse_kl": 0.5}
            row |= {m: v for m, v in {**told, gan_began._SCORE: 5.0}.items() if m not in row}
        return claim(_outcomes(rows)).holds

    assert np.mean(LITTLE) > np.mean(NONE)
    assert not holds(LITTLE)
    assert holds(MUCH)


def test_a_collapsed_generator_shows_nothing_of_gamma() -> None:
    ratios = {0: 0.5, 1: 0.5, 2: 0.5}
    for scores, holds in (((3.0, 3.0, 3.0), True), ((3.0, 1.5, 3.0), False)):
        rows = {
            f"gamma0.5_seed{seed}": {"late_energy_ratio": ratio, gan_began._SCORE: scores[seed]}
            for seed, ratio in ratios.items()
        }
        rows["without_k"] = {"late_energy_ratio": 0.3}
        assert gan_began.ratio_is_gamma(_outcomes(rows), gamma=0.5).holds == holds


# gan.gan: classes.


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05])
def test_least_reverse_kl_is_that_of_a_histogram(share: float) -> None:
    rest = (1 - share) / 9
    counts = np.round(1_800_000 * np.array([share, *[rest] * 9])).astype(int)
    found = mixtures.of_labels(np.repeat(np.arange(10), counts), 10).reverse_kl
    assert _common.least_reverse_kl(share, 10) == pytest.approx(found, abs=1e-9)


def test_least_reverse_kl_is_the_least() -> None:
    bound = _common.least_reverse_kl(0.02, 10)
    random = np.random.default_rng(0)
    for _ in range(200):  # one class has at most 2%, and the others what they have
        first = random.uniform(0, 0.02)
        others = (1 - first) * random.dirichlet(np.full(9, 50.0))
        shares = np.array([first, *others])
        assert (shares * np.log(10 * shares)).sum() >= bound


def _of_gan(uneven: float, accuracy: float = 0.995) -> Outcomes:
    fine = {"class_reverse_kl": 0.02, "fid_x": 1.0, "accuracy_mnist_classifier": accuracy}
    names = [f"{o}_{d}" for o in gan_gan.OBJECTIVES for d in ("digits", "mnist")]
    rows = {f"{name}_seed{seed}": {**fine} for name in names for seed in range(3)}
    # One sample of 10,000 in the tenth class: it is covered.
    rows["minimax_digits_seed1"] |= {"class_reverse_kl": uneven, "classes_covered": 10}
    return _outcomes(rows)


def test_a_class_of_one_sample_is_not_made() -> None:
    labels = np.concatenate([np.arange(9).repeat(1111), [9]])
    found = mixtures.of_labels(labels, 10)
    assert found.modes == 10
    assert not gan_gan.all_classes(_of_gan(found.reverse_kl), "digits").holds
    assert gan_gan.all_classes(_of_gan(0.05), "digits").holds


def test_the_classifier_must_be_good() -> None:
    assert gan_gan.classifier_is_good(_of_gan(0.0, 0.99)).holds
    assert not gan_gan.classifier_is_good(_of_gan(0.0, 0.9899)).holds


# gan.improved: games.


@pytest.mark.parametrize("name", list(gan_improved.GAMES))
def test_a_game_that_plain_players_solve_shows_nothing(name: str) -> None:
    starts = [gan_improved._from(x, y) for x, y in gan_improved.GAMES[name].starts]

    def holds(plain: float) -> bool:
        rows = {
            f"game_{name}_averaged": dict.fromkeys(starts, 1e-4),
            f"game_{name}_plain": {**dict.fromkeys(starts, 0.9), starts[0]: plain},
        }
        return gan_improved.game_is_solved(_outcomes(rows), name).holds

    assert holds(0.9)
    assert not holds(0.005)


def test_virtual_batch_norm_is_section_3_5() -> None:
    assert gan_improved.virtual_batch_norm(Outcomes({}, ())).paper.startswith("section 3.5")


# gan.mdgan: what is compared has been given the same.


def test_all_generators_of_mdgan_move_as_often_and_are_judged_by_as_many() -> None:
    rows = gan_mdgan.rows("small")
    moves: dict[bool, set[int]] = {True: set(), False: set()}
    for row in rows:
        flags = [f"--flagfile=configs/{row.flagfile}", *row.flags]
        _, hp, _ = hparams.parse(["", *flags], train.Options)
        weak = hp.discriminator_learning_rate is not None
        moves[weak].add(hp.steps * (2 if hp.form == "manifold_diffusion" else 1))
        assert weak == ("_strong_" not in row.name)
    assert moves == {True: {4000}, False: {8000}}
    stacked = [r for r in (*gan_wgan.rows("small"), *gan_unrolled.rows("small"))
               if "stacked_mnist" in r.name]  # fmt: skip
    assert {row.evaluation for row in (*rows, *stacked)} == {("--num_samples=25600",)}
    assert {row.seed for row in rows if "_row_" in row.name} == {0, 1, 2}


def test_the_layout_of_the_paper_is_seed_by_seed() -> None:
    def holds(*ours: float) -> bool:
        numbers = {"regularized_row": ours, "plain_row": (500.0, 500.0, 500.0)}
        claim = functools.partial(gan_mdgan.fewer_missed, form="regularized", layout="_row")
        return claim(_by_seed("modes_covered", numbers)).holds

    assert holds(501, 502, 503)
    assert not holds(900, 900, 499)


# gan.wgan: trajectories.


def test_trajectories_are_of_equal_steps() -> None:
    rows = [row for row in gan_wgan.rows("small") if "trajectory" in row.name]
    assert {row.arguments["name"] for row in rows} == {"wgan", "gan"}
    assert len({row.arguments["steps"] for row in rows}) == 1
    assert gan_wgan.STEPS % gan_wgan.EVERY == 0


@pytest.mark.parametrize("level", [-1.4, 0.5])
def test_smoothing_does_not_pull_the_ends_to_zero(level: float) -> None:
    np.testing.assert_array_equal(gan_wgan.smoothed([level] * 7), [level] * 7)
    bumpy = gan_wgan.smoothed([1.0, 2.0, 90.0, 4.0, 5.0, 6.0])
    np.testing.assert_array_equal(bumpy, [1.0, 2.0, 4.0, 5.0, 6.0, 6.0])


@pytest.fixture(scope="module")
def judged():
    """A small GAN with batch norm in both networks, and a batch."""
    flags = ["", "--system=gan.gan", "--data=digits", "--filters=4", "--latent_dim=3"]
    _, hp, _ = hparams.parse(flags, gan_wgan._NoOptions)
    digits = gan_wgan.commands.load_data(hp, None, "fail")
    model = hparams.load_system("gan.gan").build(hp, digits.spec)
    return model, next(iter(digits.batches("test", 64)))["image"]


def test_judging_held_out_images_leaves_the_model_as_it_was(judged) -> None:
    model, real = judged
    before = [v.numpy() for v in model.variables]
    samples = model.sample(8, 0).numpy()
    with gan_wgan.unmoved(model):
        gan_wgan.held_out_loss(model, real, tf.constant([0, 0]))
        moved = [v.numpy() for v in model.variables]
    assert any((a != b).any() for a, b in zip(before, moved, strict=True))
    for was, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(was, variable.numpy())
    np.testing.assert_array_equal(samples, model.sample(8, 0).numpy())


def test_held_out_losses_are_of_other_latents_each_time(judged) -> None:
    model, real = judged
    seeds = ([0, 0], [0, 1], [1, 0], [0, 0])
    with gan_wgan.unmoved(model):
        losses = [float(gan_wgan.held_out_loss(model, real, tf.constant(s))) for s in seeds]
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3


# gan.wgan_gp: the critic's shape and weights.


def _log_density(points: np.ndarray) -> np.ndarray:
    squares = ((points[:, None] - GRID) ** 2).sum(axis=2)
    return np.log(np.exp(-squares / (2 * 0.3**2)).sum(axis=1))


@pytest.mark.parametrize(
    "simple",
    [
        lambda x: 0 * x[:, 0] + 1,
        lambda x: 3 * x[:, 0] - x[:, 1] + 1,
        lambda x: np.linalg.norm(x, axis=1),
        lambda x: -np.linalg.norm(x, axis=1),
        lambda x: -(x**2).sum(axis=1),
        lambda x: np.abs(x).max(axis=1),
        lambda x: -_log_density(x),  # high where there is no data
    ],
)
def test_contrast_of_simple_critics_is_small(simple: Callable) -> None:
    assert gan_wgan_gp.contrast(simple) < 0.15


def test_contrast_of_critics_that_know_the_modes_is_large() -> None:
    assert gan_wgan_gp.contrast(_log_density) > 1.5
    near = lambda x: (np.abs(x[:, None] - GRID).max(axis=2).min(axis=1) < 0.1) * 1.0  # noqa: E731
    # 25 ones and 40 zeros: 1 / sqrt(25 * 40 / 65^2)
    assert gan_wgan_gp.contrast(near) == pytest.approx(65 / math.sqrt(1000))
    hill = lambda x: _log_density(x) - (x**2).sum(axis=1) / 4  # noqa: E731
    assert gan_wgan_gp.contrast(hill) > 0.5


def _of_wgan_gp(measure: str, ours: float, clipped: float) -> Outcomes:
    return _by_seed(measure, {"wgan_gp_grid25": (ours,), "wgan_grid25": (clipped,)})


def test_a_critic_shows_modes() -> None:
    def holds(ours: float, clipped: float) -> bool:
        rows = _of_wgan_gp("critic_contrast", ours, clipped)
        return gan_wgan_gp.critic_shows_modes(rows).holds

    assert holds(0.9, 0.1)
    assert not holds(0.3, 0.1)  # little more than a cone
    assert not holds(0.8, 0.9)


def test_one_large_weight_does_not_hide_a_pile() -> None:
    random = np.random.default_rng(0)
    piled = np.where(random.random((64, 64)) < 0.6, 0.01, -0.001)
    piled[0, 0] = 5.0
    assert gan_wgan_gp.share_at_bounds([piled]) == pytest.approx(0.6, abs=0.03)
    uniform = random.uniform(-1, 1, (512, 512))
    assert gan_wgan_gp.share_at_bounds([uniform]) == pytest.approx(0.109, abs=0.01)
    assert gan_wgan_gp.share_at_bounds([random.normal(size=(512, 512))]) < 0.03


def test_kernels_of_other_sizes_have_their_own_bound() -> None:
    piles = [np.full((8, 8), 10.0), np.full((8, 8), 0.1)]
    assert gan_wgan_gp.share_at_bounds(piles) == 1.0


def test_weights_under_the_penalty_must_not_pile_up() -> None:
    def holds(ours: float, clipped: float) -> bool:
        rows = _of_wgan_gp("weights_at_bounds", ours, clipped)
        return gan_wgan_gp.weights_at_bounds(rows).holds

    assert holds(0.11, 0.6)
    assert not holds(0.3, 0.6)
    assert not holds(0.11, 0.4)


def test_only_hidden_kernels_and_the_critics_values_are_measured(tmp_path, monkeypatch) -> None:
    critic = mlp((2,), (6, 6), (1,), activation="relu", seed=1)
    kernels = [layer.kernel for layer in critic.layers if isinstance(layer, keras.layers.Dense)]
    for kernel in kernels[:-1]:
        kernel.assign(tf.fill(kernel.shape, 0.01))
    model = type("Model", (), {"discriminator": critic})
    monkeypatch.setattr(gan_wgan_gp.commands, "load_run", lambda run_dir: (None, model))
    found = gan_wgan_gp.measure(Outcome("wgan_grid25_seed0", {}, folder=tmp_path))
    assert found["weights_at_bounds"].value == 1.0
    assert np.isfinite(found["critic_contrast"].value)
    assert gan_wgan_gp.measure(Outcome("wgan_mnist_seed0", {}, folder=tmp_path)) == {}


# The lecture's distances, and how long statistics take.


def test_distances_of_lines_and_of_random_inputs_agree() -> None:
    rows = metrics_distances.rows("small")
    toys = {row.name: row.function(seed=row.seed, **row.arguments) for row in rows}
    numbers = {name: {m: v.value for m, v in found.items()} for name, found in toys.items()}
    found, left_out = reproduce.check(metrics_distances.CLAIMS, _outcomes(numbers))
    assert not left_out
    assert [claim.claim for claim in found if not claim.holds] == []
    for name, measures in numbers.items():
        for measure in measures:
            wrong = {**numbers, name: {**measures, measure: 0.5}}
            claims, _ = reproduce.check(metrics_distances.CLAIMS, _outcomes(wrong))
            assert sum(not claim.holds for claim in claims) == 1, (name, measure)


def test_seconds_of_statistics_are_of_each_and_two_cores_are_asked_for() -> None:
    found = metrics_comparison.seconds_of_statistics(images=60, features=4, seed=0)
    assert all(found[f"seconds_{name}"].value > 0 for name in metrics_comparison.STATISTICS)

    def holds(seconds: float, cores: int) -> bool:
        each = {f"seconds_{name}": seconds for name in metrics_comparison.STATISTICS}
        row = {"statistics": {**each, "cores": cores}}
        return metrics_comparison.statistics_are_fast(_outcomes(row)).holds

    assert holds(7.0, 2)
    assert not holds(8.0, 2)
    assert not holds(7.0, 16)
