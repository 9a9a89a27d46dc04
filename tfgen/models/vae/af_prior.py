"""VAE with an autoregressive flow as prior: p(z) learns where the posteriors lie.

Objective: the ELBO of `vae.py`, maximised over the prior's parameters too, with

    log p(z) = sum_i log p(z_i | z_1 .. z_{i-1}) = log N(u; 0, I) + log |du/dz|,   u = f^-1(z)

f a masked autoregressive flow. Seen from u it is a VAE whose posterior is an inverse autoregressive
flow, f^-1 of the encoder's Gaussian, and whose decoder begins with f: the same cost in training
and a deeper decoder.

The flow is the slot `prior` of `vae.VAE` and its kin; this system fills it.

Reference: X. Chen, D. P. Kingma, T. Salimans, Y. Duan, P. Dhariwal, J. Schulman, I. Sutskever,
P. Abbeel. Variational Lossy Autoencoder. ICLR 2017: section 3.2 (the prior and what it is beside an
IAF posterior), table 1 (MNIST). The flow: G. Papamakarios et al. NeurIPS 2017.

Differs from the paper:
  * The encoder and decoder are the MLPs of Burda et al. 2016, where the paper has ResNets and
    an autoregressive decoder.
"""

import dataclasses
from typing import Literal

from tfgen.data import DataSpec
from tfgen.models.vae import vae


@dataclasses.dataclass(frozen=True)
class HParams(vae.HParams):
    """Flags of a VAE with an autoregressive prior."""

    analytic_kl: bool = False  # Has no meaning here: the KL to a flow has no closed form.
    # Prior of the top layer: the standard Gaussian, or a masked autoregressive flow.
    prior: Literal["gaussian", "maf"] = "maf"
    flow_blocks: int = 4  # MADEs in a row in the flow.
    flow_hidden_units: tuple[int, ...] = (320, 320)  # Widths of their hidden layers.


def build(hparams: HParams, data_spec: DataSpec) -> vae.VAE:
    """A VAE with the flow as prior, compiled and ready to train."""
    return vae.build(hparams, data_spec)
