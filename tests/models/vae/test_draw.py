"""DRAW: recurrence by numpy, bound by brute force, canvases, animations, wrong arguments."""

import re

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from PIL import Image

from tests.kl_gradient import kl_gradients
from tests.training import runs
from tfgen import commands, run, sample
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.data import DataSpec
from tfgen.losses import bounds
from tfgen.models.vae import _slots, draw

SEED = tf.constant([5, 6])
SIZES = {"glimpses": 3, "latent_dims": (4,), "hidden_units": (12,), "read_size": 3, "write_size": 4}


def _images(count: int = 5) -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, 8, 8, 1], [1, 2]) > 0.6, tf.float32)


def _make(**flags) -> draw.DRAW:
    """An untrained model whose weights, biases included, are no special ones."""
    hp = draw.HParams(**{**SIZES, "data": "nowhere", **flags})
    spec = DataSpec("nowhere", {"image": (8, 8, 1)}, {"image": "float32"}, hp.image_range,
                    None, 100, 10, 10)  # fmt: skip
    model = draw.build(hp, spec)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.2 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return model


def _lstm(cell, inputs, state):
    h, c = state
    z = inputs @ cell.kernel.numpy() + h @ cell.recurrent_kernel.numpy() + cell.bias.numpy()
    i, f, g, o = np.split(z, 4, axis=1)
    c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
    return [scipy.special.expit(o) * np.tanh(c), c]


def _reference(model: draw.DRAW, image: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
    """Equations 3-8 by numpy at given draws z [T, N, d]: moments [T, N, 2 d] and canvases."""
    encoder, decoder, count = model.encoder, model.decoder, len(image)
    rows = lambda start: np.tile(start.bias.numpy(), (count, 1))  # noqa: E731
    looking, drawing = ([rows(s) for s in part.starts] for part in (encoder, decoder))
    canvas = rows(decoder.first_canvas).reshape(image.shape)
    moments, canvases = [], []
    for z_t in z:
        seen = np.concatenate([image, image - scipy.special.expit(canvas)], axis=-1)
        if encoder.window:
            seen = encoder.read(seen, drawing[0]).numpy()
        inputs = np.concatenate([seen.reshape(count, -1), drawing[0]], axis=1)
        looking = _lstm(encoder.cell, inputs, looking)
        moments.append(encoder.moments(looking[0]).numpy())
        drawing = _lstm(decoder.cell, z_t, drawing)
        canvas = canvas + decoder.write(drawing[0]).numpy().reshape(image.shape)
        canvases.append(canvas)
    return np.array(moments), np.array(canvases)


@pytest.mark.parametrize("attention", [True, False])
def test_recurrence_bound_and_canvases_are_the_papers(attention) -> None:
    model, images = _make(attention=attention), _images()
    found = model.infer(images, 2, SEED)
    terms = model.log_terms(images, found)
    assert found.latents[0].shape == (2, 5, 12)
    for k in range(2):
        z = found.latents[0][k].numpy().reshape(5, 3, 4).swapaxes(0, 1)
        moments, canvases = _reference(model, images.numpy(), z)
        mean, log_std = np.split(moments, 2, axis=-1)
        # Float32 sums of some hundred terms, three LSTM steps in a row.
        np.testing.assert_allclose(
            found.observation.distribution.logits[k], canvases[-1], atol=1e-4
        )
        shown = model.canvases(found.latents[0][k])
        np.testing.assert_allclose(shown, scipy.special.expit(canvases), atol=1e-4)
        log_q = scipy.stats.norm.logpdf(z, mean, np.exp(log_std)).sum((0, 2))
        np.testing.assert_allclose(terms["posterior"][k], log_q, rtol=1e-4)
        kl = 0.5 * (np.exp(2 * log_std) + mean**2 - 1) - log_std  # eq. 11, summed over glimpses
        np.testing.assert_allclose(terms["ratios"][0][k], -kl.sum((0, 2)), rtol=1e-4)
        ink = images.numpy()
        log_p = ink * canvases[-1] - np.logaddexp(0, canvases[-1])
        np.testing.assert_allclose(terms["likelihood"][k], log_p.sum((1, 2, 3)), rtol=1e-4)
    again = model.observation(found.latents[0]).log_prob(images)  # the decoder by itself
    np.testing.assert_allclose(again, terms["likelihood"], rtol=1e-5)
    latent = model.encode(images).numpy().reshape(5, 3, 4).swapaxes(0, 1)
    means = np.split(_reference(model, images.numpy(), latent)[0], 2, axis=-1)[0]
    np.testing.assert_allclose(latent, means, atol=1e-4)


def test_a_glimpse_sees_the_draws_before_it() -> None:
    """Two draws of one image share q(z_1|x) and differ in q(z_2|x, z_1)."""
    mean = _make().infer(_images(1), 2, SEED).posteriors[0].mean().numpy().reshape(2, 3, 4)
    np.testing.assert_array_equal(mean[0, 0], mean[1, 0])
    assert abs(mean[0, 1] - mean[1, 1]).max() > 1e-3


def test_importance_weights_tend_to_log_p_by_draws_from_the_prior() -> None:
    model, images = _make(latent_dims=(1,), glimpses=2), _images(3)
    z = tf.random.stateless_normal([100_000, 2], [1, 2])
    canvases = model.decoder(z)
    joint = [model._likelihood(canvases).log_prob(image[None]).numpy() for image in images]
    expected = scipy.special.logsumexp(joint, axis=1) - np.log(len(z))
    log_weight = model.importance_terms(images, 2000, SEED)["log_weight"]
    weights = [bounds.normalized_weights(log_weight), scipy.special.softmax(np.array(joint).T, 0)]
    error = sum(np.sqrt(np.sum(np.square(w), 0)) for w in weights)  # by the delta method
    assert error.max() < 0.2
    np.testing.assert_array_less(abs(bounds.iwae(log_weight) - expected), 4 * error)
    assert (tf.reduce_mean(log_weight, 0) < expected).numpy().all()


def test_it_trains_by_the_importance_weighted_bound(tmp_path) -> None:
    flags = {"importance_weighted": True, "analytic_kl": False}
    model, images = _make(k=3, **flags, steps_per_execution=1), _images()
    found = model.infer(images, 3, model.noise_seed(), training=True)
    terms = model.log_terms(images, found, training=True)
    weights = np.float64(terms["likelihood"] + terms["prior"] - terms["posterior"])
    bound = scipy.special.logsumexp(weights, axis=0) - np.log(3)
    assert (bound - weights.mean(0)).mean() > 0.1
    before = [v.numpy() for v in model.trainable_variables]
    rows = model.run_steps(iter(tf.data.Dataset.from_tensors({"image": images})), 1)
    assert rows[0]["loss"] == pytest.approx(-bound.mean(), rel=1e-5)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), old), variable.path
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert twin.importance_weighted
    losses = [float(m.test_step({"image": images})["loss"]) for m in (model, twin)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("importance_weighted", [False, True])
def test_free_bits_stop_the_gradient_of_the_kl(importance_weighted: bool) -> None:
    flags = {"importance_weighted": importance_weighted, "analytic_kl": not importance_weighted}
    found = {
        free_bits: kl_gradients(_make(free_bits=free_bits, **flags), _images(), 3, SEED)
        for free_bits in (0.0, 1e-3, 1e4)
    }
    # Float32 sums over a batch of components up to 10.
    assert max(found[1e4]) < 1e-4
    assert min(found[0.0]) > 1e-3
    assert found[1e-3] == found[0.0]


def test_the_first_canvas_is_the_mean_image() -> None:
    model, images = _make(), _images(50)
    model.adapt(tf.data.Dataset.from_tensors({"image": images}))
    canvas = model.decoder.blank(images[:1])
    mean = np.clip(images.numpy().mean(0, keepdims=True), 0.001, 0.999)
    np.testing.assert_allclose(tf.sigmoid(canvas), mean, rtol=1e-4)


def test_the_loop_is_traced_once() -> None:
    """The graph of a train step does not grow with the glimpses."""
    sizes = []
    for glimpses in (2, 20):
        model = _make(glimpses=glimpses)
        step = tf.function(model.train_step, autograph=False)
        graph = step.get_concrete_function({"image": _images()}).graph.as_graph_def()
        functions = sum(len(f.node_def) for f in graph.library.function)
        sizes.append(len(graph.node) + functions)
    assert sizes[0] == sizes[1]


def test_with_xla_and_other_likelihoods_and_priors() -> None:
    images = tf.random.stateless_uniform([4, 8, 8, 1], [1, 2])
    for flags in (
        {"likelihood": "gaussian", "jit": True},
        {"likelihood": "discretized_logistic", "prior": "maf", "analytic_kl": False},
        {"likelihood": "logistic_mixture"},
    ):
        model = _make(**flags, steps_per_execution=2)
        rows = model.run_steps(iter(tf.data.Dataset.from_tensors({"image": images}).repeat()), 2)
        assert all(np.isfinite(value) for row in rows for value in row.values())
        assert model.sample(3, 0).shape == (3, 8, 8, 1)
        assert model.pictures({"image": images}, 0)["canvases"].shape == (8, 3, 8, 8, 1)


@pytest.mark.parametrize("attention", [True, False])
def test_it_learns(attention) -> None:
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)  # of the order of the images
    images = (load_digits().images[..., None] > 8).astype(np.float32)[:1000]
    model = _make(attention=attention, hidden_units=(48,), kl_warmup_steps=300)
    model.adapt(tf.data.Dataset.from_tensors({"image": images}))
    model.compile(keras.optimizers.Adam(5e-3), steps_per_execution=10)
    model.fit(images, batch_size=50, epochs=30, verbose=0)
    mean = np.clip(images.mean(0), 1e-3, 1 - 1e-3)
    mean_image = (images * np.log(mean) + (1 - images) * np.log(1 - mean)).sum((1, 2, 3)).mean()
    assert float(tf.reduce_mean(model.log_prob(images, 0, 20))) > mean_image + 2.0


def test_animations_of_a_run_and_of_its_samples(tmp_path, digits_dir) -> None:
    flags = [f"--{name}={value[0] if isinstance(value, tuple) else value}"
             for name, value in SIZES.items()]  # fmt: skip
    path = tmp_path / "run"
    flags += ["--system=vae.draw", "--steps=2", f"--data_dir={digits_dir}"]
    assert runs.train_here(path, *flags) == 0
    keras.utils.clear_session()
    assert commands.execute(sample.main, ["sample", f"--run_dir={path}", "--num=1"]) == 0
    frames = run.read_arrays(path / "samples" / "drawing-seed0.npz")["image"]
    assert frames.shape == (3, 8, 8, 8, 8, 1)
    rows = run.read_arrays(path / "samples" / "canvases-seed0.npz")["image"]
    np.testing.assert_array_equal(rows, frames[:, :, 0].swapaxes(0, 1))
    for name in ("drawing-000000002", "drawing-seed0"):
        with Image.open(path / "samples" / f"{name}.gif") as gif:
            assert gif.n_frames == 3
            assert gif.size == (8 * 32 + 14, 8 * 32 + 14)
            gif.seek(2)
            last = np.asarray(gif.convert("L"))[:32:4, :32:4]
        np.testing.assert_allclose(last, 255 * frames[2, 0, 0, ..., 0], atol=3)  # of the palette


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"glimpses": 0}, "--glimpses must be more than 0. Received: --glimpses=0"),
        ({"read_size": 0}, "--read_size must be more than 0"),
        ({"write_size": 0}, "--write_size must be more than 0"),
        ({"read_size": 9}, "--read_size must be from 1 to .* 8x8. Received: --read_size=9"),
        ({"write_size": 9}, "--write_size must be from 1 to .* Received: --write_size=9"),
        ({"latent_dims": (3, 2), "hidden_units": (4, 4)}, "one number in --latent_dims and one"),
        ({"posterior": "iaf", "analytic_kl": False}, "has Gaussian posteriors"),
        ({"importance_weighted": True}, "no meaning for the .* bound.*: set --analytic_kl=false"),
    ],
)
def test_wrong_flags_are_one_line(flags, match, digits_dir, capsys, tmp_path) -> None:
    text = lambda v: ",".join(map(str, v)) if isinstance(v, tuple) else str(v).lower()  # noqa: E731
    given = [f"--{name}={text(value)}" for name, value in flags.items()]
    given += ["--system=vae.draw", f"--data_dir={digits_dir}"]
    assert runs.train_here(tmp_path / "run", *given) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("FATAL: ")
    assert re.search(match, line), line


def test_without_attention_the_windows_may_be_any() -> None:
    assert _make(attention=False, read_size=99).encoder.window is None


def test_networks_that_do_not_fit_are_named() -> None:
    encoder = draw.GlimpseEncoder((8, 8, 1), 2, 6, 5)
    with pytest.raises(ValueError, match=r"same glimpses.*Received: \(2, 6, 5\) and \(3, 4, 5\)"):
        draw.DRAW(encoder, draw.CanvasDecoder((8, 8, 1), 3, 4, 5))
    decoder = draw.CanvasDecoder((8, 8, 1), 2, 6, 5)
    flow = AutoregressiveFlow(12, hidden_units=(12,), kind="inverse")
    with pytest.raises(ValueError, match="are Gaussian. Received: FlowPosterior"):
        draw.DRAW(encoder, decoder, posterior=_slots.FlowPosterior(flow), analytic_kl=False)
    with pytest.raises(NotImplementedError, match="see `infer`"):
        draw.DRAW(encoder, decoder).posterior(0, _images())
