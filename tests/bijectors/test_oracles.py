"""The same numbers as nflows and zuko, with their weights."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfgen.bijectors.autoregressive import (
    BOUND,
    InverseAutoregressive,
    MaskedAutoregressive,
)
from tfgen.networks.made import autoregress, made

torch = pytest.importorskip("torch", reason="the oracles need torch: pip install torch==2.13.0")

D, WIDTH, BLOCKS = 5, 16, 3
EPSILON = 0.05  # The least scale of nflows; its own is below what our bound on log scales allows.
X = np.random.default_rng(3).normal(size=(64, D)).astype(np.float32)


class _Conditioner:
    """A network of ours, whose two numbers are brought into another form."""

    def __init__(self, network: keras.Model, form: Callable[[tf.Tensor, tf.Tensor], tuple]):
        self.network, self.form = network, form

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.stack(self.form(*tf.unstack(self.network(x), axis=-1)), axis=-1)

    def autoregress(self, transform: Callable, u: tf.Tensor) -> tf.Tensor:
        def formed(row: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
            return transform(row, tf.stack(self.form(*tf.unstack(numbers))))

        return autoregress(self.network, formed, u)


def _as_masked(log_scale: tf.Tensor, shift: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Their u = exp(log_scale) x + shift as our u = (x - m) exp(-a): m and the unbounded a."""
    bounded = -log_scale
    return -shift * tf.exp(bounded), bounded / (1.0 - tf.abs(bounded) / BOUND)


def _log_scale(number: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.nn.softplus(number) + EPSILON)  # as nflows has it


@pytest.fixture
def nflows_blocks() -> list[Any]:
    """Masked affine blocks of nflows, whose weights are large enough to matter."""
    autoregressive = pytest.importorskip(
        "nflows.transforms.autoregressive", reason="pip install --no-deps nflows==0.14"
    )
    torch.manual_seed(0)
    blocks = [
        autoregressive.MaskedAffineAutoregressiveTransform(
            D, WIDTH, num_blocks=1, use_residual_blocks=False
        )
        for _ in range(BLOCKS)
    ]
    for block in blocks:
        block._epsilon = EPSILON
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return blocks


def _with_weights_of(block: Any) -> keras.Model:
    """Our MADE with the weights of a block of nflows."""
    theirs = block.autoregressive_net
    network = made(D, (WIDTH, WIDTH))
    layers = {
        "hidden_1": theirs.initial_layer,
        "hidden_2": theirs.blocks[0].linear,
        "output": theirs.final_layer,
    }
    for name, layer in layers.items():
        kernel, bias = (p.detach().numpy() for p in (layer.weight.T, layer.bias))
        np.testing.assert_array_equal(network.get_layer(name).mask, layer.mask.numpy().T)
        network.get_layer(name).set_weights([kernel, bias])
    return network


def test_made_gives_the_numbers_of_nflows(nflows_blocks: list) -> None:
    block = nflows_blocks[0]
    expected = block.autoregressive_net(torch.from_numpy(X)).detach().numpy().reshape(-1, D, 2)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(_with_weights_of(block)(X), expected, rtol=1e-4, atol=1e-5)


def test_a_masked_flow_has_the_density_and_samples_of_nflows(nflows_blocks: list) -> None:
    from nflows import distributions, flows, transforms

    theirs = flows.Flow(
        transforms.CompositeTransform(
            [t for b in nflows_blocks for t in (b, transforms.ReversePermutation(D))]
        ),
        distributions.StandardNormal([D]),
    )
    ours: list[tfb.Bijector] = []  # from the data's end
    for block in nflows_blocks:
        network = _with_weights_of(block)
        form = lambda number, shift: _as_masked(_log_scale(number), shift)  # noqa: E731
        ours += [
            MaskedAutoregressive(_Conditioner(network, form)),
            tfb.Permute(list(range(D))[::-1]),
        ]
    flow = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(D), tf.ones(D)), tfb.Chain(ours)
    )
    expected = theirs.log_prob(torch.from_numpy(X)).detach().numpy()
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(flow.log_prob(X), expected, rtol=1e-4, atol=1e-3)
    # The slow direction, from the same draws of the base.
    points = theirs._transform.inverse(torch.from_numpy(X))[0].detach().numpy()
    np.testing.assert_allclose(flow.bijector.forward(X), points, rtol=1e-3, atol=1e-3)


def test_an_inverse_flow_has_the_log_det_of_nflows(nflows_blocks: list) -> None:
    block = nflows_blocks[0]
    with torch.no_grad():
        last = block.autoregressive_net.final_layer
        last.weight[::2] *= 0.1  # every scale below 1, as a gate is
        last.bias[::2] = -1.0
    network = _with_weights_of(block)

    def gated(number: tf.Tensor, shift: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        gate = tf.exp(_log_scale(number))
        bounded = tf.math.log(gate / (1.0 - gate))
        return shift / (1.0 - gate), bounded / (1.0 - tf.abs(bounded) / BOUND)

    ours = InverseAutoregressive(_Conditioner(network, gated), gate_bias=0.0)
    point, log_det = (t.detach().numpy() for t in block(torch.from_numpy(X)))
    np.testing.assert_allclose(ours.forward(X), point, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.forward_log_det_jacobian(X, 1), log_det, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.inverse(point), X, rtol=1e-3, atol=1e-3)


def test_a_masked_block_has_the_density_of_zuko() -> None:
    zuko = pytest.importorskip("zuko", reason="pip install --no-deps zuko==1.6.0")
    torch.manual_seed(1)
    # Its slope bounds log scales as ours are bounded.
    theirs = zuko.flows.MaskedAutoregressiveTransform(
        D,
        hidden_features=(WIDTH,),
        univariate=lambda *phi: zuko.transforms.MonotonicAffineTransform(
            *phi, slope=math.exp(-BOUND)
        ),
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    layers = [m for m in theirs.hyper if hasattr(m, "mask")]
    first, last = ((m.weight * m.mask, m.bias) for m in layers)
    weights = [tf.constant(p.detach().numpy()) for p in (*first, *last)]

    def numbers(x: tf.Tensor) -> tf.Tensor:
        hidden = tf.nn.relu(x @ tf.transpose(weights[0]) + weights[1])
        shift, raw = tf.unstack(
            tf.reshape(hidden @ tf.transpose(weights[2]) + weights[3], [-1, D, 2]), axis=-1
        )
        log_scale = raw / (1.0 + tf.abs(raw) / BOUND)
        return tf.stack(_as_masked(log_scale, shift), axis=-1)

    transform = theirs()
    point, log_det = (t.detach().numpy() for t in transform.call_and_ladj(torch.from_numpy(X)))
    assert np.std(log_det) > 0.5
    ours = MaskedAutoregressive(numbers)
    np.testing.assert_allclose(ours.inverse(X), point, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.inverse_log_det_jacobian(X, 1), log_det, rtol=1e-4, atol=1e-4)
