"""What Chen et al. 2017 claim of autoregressive priors, measured.

Paper, statically binarised MNIST (table 1), ResNets: log p(x) -79.30 with the autoregressive prior,
-79.88 with an IAF posterior of equal cost.
"""

import functools

from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import parameters, seeds_of, sizes, text, values

measure = parameters
DATA = ("digits", "mnist")
VARIANTS = {  # name -> flagfile and flags; flows of equal cost
    "prior": ("af_prior", ()),
    "standard": ("af_prior", ("--prior=gaussian",)),
    "posterior": ("iaf", ()),
}


def rows(budget: str) -> list[Run]:
    """The flow as prior, as posterior, and not at all."""
    del budget  # there is one
    return [
        Run(
            f"{name}_{data}_seed{s}",
            f"{config}_{data}.cfg",
            (*flags, f"--seed={s}"),
            ("--k=1000",),
            s,
        )
        for data in DATA
        for name, (config, flags) in VARIANTS.items()
        for s in seeds_of(data)
    ]


def above_the_standard_prior(outcomes: Outcomes, data: str) -> Claim:
    """An autoregressive prior has a higher ELBO than N(0, I)."""
    groups = outcomes.by_seed(f"prior_{data}", f"standard_{data}", seeds=seeds_of(data))
    ours, plain = (values(group, "elbo") for group in groups)
    flow, standard = sizes(*groups)
    return Claim(
        f"{data}: ELBO by the autoregressive prior ({flow}) above that by N(0, I) ({standard}), "
        "the same networks",
        "section 3.2",
        text(ours, ".4g"),
        text(plain, ".4g"),
        "nats",
        min(ours) > max(plain),
    )


def beside_a_posterior(outcomes: Outcomes, data: str) -> Claim:
    """NLL of the flow as prior is below the same flow's as posterior."""
    groups = outcomes.by_seed(f"prior_{data}", f"posterior_{data}", seeds=seeds_of(data))
    ours, theirs = (values(group, "nll") for group in groups)
    prior, posterior = sizes(*groups)
    return Claim(
        f"{data}: NLL with the flow as prior ({prior}) below that with it as posterior "
        f"({posterior}), in the mean of seeds",
        "79.30 < 79.88" if data == "mnist" else "",
        text(ours, ".4g"),
        text(theirs, ".4g"),
        "nats",
        sum(ours) < sum(theirs),
    )


CLAIMS = tuple(
    functools.partial(claim, data=data)
    for data in DATA
    for claim in (above_the_standard_prior, beside_a_posterior)
)

# Samples by each.
PICTURES = _gallery.grids({data: [f"{name}_{data}_seed0" for name in VARIANTS] for data in DATA})
