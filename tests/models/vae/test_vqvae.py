"""VQ-VAE: its bound against a sum over all codes, its stages, its prior, bad input."""

import itertools

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.layers.vector_quantizer import VectorQuantizer
from tfgen.models.vae import vqvae
from tfgen.networks.pixelcnn import PixelCNNNetwork

SMALL = {
    "num_codes": 6, "code_dim": 3, "filters": 8, "halvings": 1, "residual_blocks": 1,
    "prior_layers": 1, "prior_filters": 8, "batch_size": 10, "steps": 10,
}  # fmt: skip


def build(shape: tuple[int, ...] = (8, 8, 1), **flags) -> vqvae.VQVAE:
    hp = vqvae.HParams(**{**SMALL, **flags})
    spec = DataSpec(
        "nowhere", {"image": shape}, {"image": "float32"}, hp.image_range, None, 100, 20, 20
    )
    return vqvae.build(hp, spec)


def images(count: int = 10, shape: tuple[int, ...] = (8, 8, 1), binary: bool = False) -> tf.Tensor:
    found = tf.random.stateless_uniform([count, *shape], [1, 2])
    return tf.cast(found > 0.5, tf.float32) if binary else tf.round(found * 255) / 255


def stream(image: tf.Tensor):
    return iter(tf.data.Dataset.from_tensors({"image": image}).repeat())


def values(variables) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in variables]


def moved(variables, before: list[np.ndarray]) -> list[bool]:
    return [not np.array_equal(v.numpy(), b) for v, b in zip(variables, before, strict=True)]


def test_shapes_of_the_paper() -> None:
    hp = vqvae.HParams()
    encoder, decoder = vqvae.networks((32, 32, 3), hp, 6)
    assert encoder.output_shape == (None, 8, 8, 64)
    assert decoder.output_shape == (None, 32, 32, 6)
    # Twice 4x4 kernels, two blocks of 3x3 and 1x1, and 1x1 to 64; all but the first of 256.
    blocks = 2 * (256 * 256 * 9 + 256 + 256 * 256 + 256)
    sizes = 16 * 3 * 128 + 128, 16 * 128 * 256 + 256, blocks, 256 * 64 + 64
    assert encoder.count_params() == sum(sizes)


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretized_logistic"])
def test_the_bound_is_below_the_sum_over_all_codes(likelihood) -> None:
    model = build((4, 4, 1), likelihood=likelihood, halvings=1)
    image = images(3, (4, 4, 1), likelihood == "bernoulli")
    every = np.array(list(itertools.product(range(6), repeat=4)), np.int32).reshape(-1, 2, 2)
    log_prior = model.code_log_prob(every).numpy()
    assert scipy.special.logsumexp(log_prior) == pytest.approx(0, abs=1e-3)
    bound = model.log_prob(image).numpy()
    for example, found in zip(image, bound, strict=True):
        observation = model._observation(model.quantizer.embed(every))
        joint = observation.log_prob(example).numpy() + log_prior
        assert found < scipy.special.logsumexp(joint) + 1e-3
        # It is one of the sum's terms: that of the nearest codes.
        (own,) = model.encode(example[tf.newaxis]).numpy()
        index = int((every == own).all((1, 2)).argmax())
        assert found == pytest.approx(joint[index], abs=1e-3)


def test_the_loss_is_equation_3() -> None:
    model, image = build(codebook_decay=0.0, commitment=0.5, prior_from=0.5), images()
    z = model.encoder(image).numpy()
    codes = model.quantizer.embed(model.encode(image)).numpy()
    squares = ((z - codes) ** 2).sum((1, 2, 3)).mean()
    likelihood = model._observation(tf.constant(codes)).log_prob(image).numpy().mean()
    (logs,) = model.run_steps(stream(image), 1)
    assert logs["likelihood"] == pytest.approx(likelihood, rel=1e-4)
    assert logs["loss"] == pytest.approx(1.5 * squares - likelihood, rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_prior_learns_when_all_else_is_at_rest(decay) -> None:
    model, batches = build(codebook_decay=decay, prior_from=0.3), stream(images())
    players = model.players()
    assert len(players["model"]) + len(players["prior"]) == len(model.trainable_variables)
    before = {name: values(variables) for name, variables in players.items()}
    book = model.quantizer.codebook.numpy()
    rows = model.run_steps(batches, 3)
    assert all("perplexity" in logs for logs in rows)
    assert all(moved(players["model"], before["model"]))
    assert not any(moved(players["prior"], before["prior"]))
    assert np.abs(model.quantizer.codebook - book).max() > 0
    before["model"], book = values(players["model"]), model.quantizer.codebook.numpy()
    (logs,) = model.run_steps(batches, 1)
    assert set(logs) == {"loss"}
    assert not any(moved(players["model"], before["model"]))
    np.testing.assert_array_equal(model.quantizer.codebook, book)
    assert all(moved(players["prior"], before["prior"]))


def test_logs_of_a_validation_batch_add_up() -> None:
    model, image = build(), images()
    logs = {name: float(value) for name, value in model.test_step({"image": image}).items()}
    assert logs["loss"] == pytest.approx(-float(tf.reduce_mean(model.log_prob(image))), rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["code_nll"] - logs["likelihood"], rel=1e-6)


def test_samples_decode_codes_of_the_prior() -> None:
    model = build()
    drawn = model.prior.draw(4, tf.constant([3, 0]))[..., 0]
    np.testing.assert_allclose(model.sample(4, 3), model.decode(drawn), atol=1e-6)
    assert np.abs(model.sample(4, 3) - model.sample(4, 4)).max() > 0
    # A prior that knows one map draws nothing else; the uniform draws are not of it.
    for variable in model.prior.head[-1].trainable_variables:
        variable.assign(tf.zeros_like(variable))
    model.prior.head[-1].bias.assign([0, 0, 50.0, 0, 0, 0])
    np.testing.assert_allclose(model.sample(2, 0), model.decode(np.full((2, 4, 4), 2)), atol=1e-6)
    assert np.abs(model.sample_uniformly(2, 0) - model.sample(2, 0)).max() > 0


@pytest.mark.parametrize(
    "flags",
    [
        {"codebook_decay": 0.0},
        {"restart_below": 0.5},
        {"likelihood": "bernoulli", "binarize": "threshold"},
        {"halvings": 2, "likelihood": "logistic_mixture"},
    ],
)
def test_learns_more_of_digits_than_pixels_alone_tell(flags) -> None:
    from sklearn.datasets import load_digits

    grey = np.round(load_digits().images[..., None] * (255 / 16)).astype(np.float32) / 255
    if flags.get("likelihood") == "bernoulli":
        grey = np.round(grey)
    sizes = {"num_codes": 32, "code_dim": 8, "filters": 32, "prior_filters": 16}
    model = build(**{**sizes, "learning_rate": 3e-3, "steps": 500, **flags})
    train = tf.data.Dataset.from_tensor_slices({"image": grey[:1500]}).shuffle(1500, seed=0)
    rows = model.run_steps(iter(train.repeat().batch(50)), 500)
    assert rows[299]["likelihood"] > rows[0]["likelihood"] + 10
    test, codes = grey[1500:], model.encode(grey[1500:])
    error = np.mean((model.reconstruct(test) - test) ** 2)
    assert error < 0.6 * np.mean((grey[:1500].mean(0) - test) ** 2)
    uniform = -np.log(32) * np.prod(codes.shape[1:])
    assert float(tf.reduce_mean(model.code_log_prob(codes))) > 0.8 * uniform
    assert len(np.unique(codes)) > 3


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="--num_codes must be 2 or more. Received: --num_codes=1"):
        vqvae.HParams(num_codes=1)
    with pytest.raises(ValueError, match="--codebook_decay must be at least 0 and below 1"):
        vqvae.HParams(codebook_decay=1.0)
    with pytest.raises(ValueError, match="needs codes that are moving averages. Received: --rest"):
        vqvae.HParams(restart_below=1.0, codebook_decay=0.0)
    with pytest.raises(ValueError, match=r"--halvings=2 needs sides that are multiples of 4.*10x8"):
        build((10, 8, 1), halvings=2)
    encoder, decoder = vqvae.networks((8, 8, 1), vqvae.HParams(**SMALL), 2)
    quantizer, prior = VectorQuantizer(6), PixelCNNNetwork((4, 4, 1), levels=6, filters=4)
    wider = vqvae.networks((8, 8, 1), vqvae.HParams(**{**SMALL, "code_dim": 4}), 2)[1]
    with pytest.raises(ValueError, match=r"gives \(4, 4, 3\), the decoder takes \(4, 4, 4\)"):
        vqvae.VQVAE(encoder, wider, quantizer, prior, prior_from=1)
    with pytest.raises(ValueError, match=r"over \(4, 4, 1\) of 7 levels. Received: .* of 6"):
        vqvae.VQVAE(encoder, decoder, VectorQuantizer(7), prior, prior_from=1)
