"""VAE with an inverse autoregressive flow as posterior: cheap to draw from, and no longer diagonal.

Objective: the ELBO of `vae.py`, maximised, with z = z_T made from a diagonal Gaussian's draw z_0 by
T blocks, each given a context h of the image:

    z_t = g_t z_{t-1} + (1 - g_t) m_t,   g_t = sigmoid(s_t + bias),
    (m_t, s_t) functions of h and of the dimensions of z_{t-1} before, whose order is reversed
    log q(z|x) = log N(z_0; mean, std^2) - sum_t sum_i log g_t,i

The flow is the slot `posterior` of `vae.VAE` and its kin; this system fills it with the paper's.

Reference: D. P. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever, M. Welling. Improving
Variational Inference with Inverse Autoregressive Flow. NeurIPS 2016: eq. 10-14 and algorithm 1
(flow), eq. 15 (free bits), table 1 (MNIST).

Differs from the paper:
  * The encoder and decoder are the MLPs of Burda et al. 2016, where the paper has ResNets.
  * A minibatch's mean KL is held to the free bits a stochastic layer, not a group of its maps.
  * Gates are bounded before their sigmoid, see `bijectors.InverseAutoregressive`.
  * By default 4 flows of 320 units; the paper's MNIST table has up to 8 of 1920.
"""

import dataclasses

from tfgen.data import DataSpec
from tfgen.models.vae import vae


@dataclasses.dataclass(frozen=True)
class HParams(vae.HParams):
    """Flags of a VAE with an IAF posterior."""

    analytic_kl: bool = False  # Has no meaning here: the KL of a flow has no closed form.
    # Posterior of each stochastic layer: a diagonal Gaussian, an inverse autoregressive flow, or,
    # with one layer, categorical variables.
    posterior: vae.PosteriorName = "iaf"
    flow_blocks: int = 4  # MADEs in a row in each flow; 2, 4 or 8 in the paper.
    flow_hidden_units: tuple[int, ...] = (320, 320)  # Widths of their hidden layers.


def build(hparams: HParams, data_spec: DataSpec) -> vae.VAE:
    """A VAE with the flow as posterior, compiled and ready to train."""
    return vae.build(hparams, data_spec)
