"""What Che et al. 2017 claim of mode regularisation on 1000 modes (table 2), measured.

Three digits of MNIST in red, green and blue, and, as in the paper, side by side. The baseline is
the plain GAN of the same networks, whose discriminator is a quarter of the generator: against a
strong one there is nothing to show, because the plain GAN then covers every mode as well.
"""

import pathlib

from tools.claims import _gallery
from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
MODES = 1000
FORMS = {
    "plain": ("--form=plain",),
    "regularized": ("--form=regularized",),
    "manifold_diffusion": (
        "--form=manifold_diffusion", "--distance_weight=1", "--mode_weight=0.01"
    ),
}  # fmt: skip


def runs(budget: str) -> list[Run]:
    """Each form on each seed, and plain and regularised ones on the paper's layout."""
    del budget  # there is one
    found = []
    for seed in SEEDS:
        for form, flags in FORMS.items():
            found.append(_run(f"{form}_seed{seed}", flags, seed))
    for form in ("plain", "regularized"):
        found.append(_run(f"{form}_row_seed0", (*FORMS[form], "--side_by_side"), 0))
    return found


def _run(name: str, flags: tuple[str, ...], seed: int) -> Run:
    return Run(name, "mdgan_stacked_mnist.cfg", (*flags, f"--seed={seed}"), (), seed)


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from the numbers of its runs."""
    found = []
    names = [f"seed{seed}" for seed in SEEDS]
    for form in ("regularized", "manifold_diffusion"):
        missed, kl = (
            {f: _values(outcomes, f, names, measure) for f in ("plain", form)}
            for measure in ("modes_covered", "mode_reverse_kl")
        )
        missed = {f: [MODES - modes for modes in values] for f, values in missed.items()}
        found += [
            _fewer(f"{form.replace('_', '-')}: fewer of the 1000 modes missed, on each seed",
                   "table 2" if form == "regularized" else "",
                   missed[form], missed["plain"], "modes"),
            _fewer(f"{form.replace('_', '-')}: lower KL(modes || uniform), on each seed",
                   "table 2" if form == "regularized" else "",
                   kl[form], kl["plain"], "nats"),
        ]  # fmt: skip
    row = ["row_seed0"]
    missed = {
        form: [MODES - v for v in _values(outcomes, form, row, "modes_covered")]
        for form in ("plain", "regularized")
    }
    found.append(
        _fewer(
            "regularized, three digits side by side as in the paper: fewer modes missed",
            "table 2",
            missed["regularized"],
            missed["plain"],
            "modes",
        )
    )
    scores = {form: [_score(outcomes[f"{form}_{name}"]) for name in names] for form in FORMS}
    found.append(
        _more(
            "regularized: higher MODE score, which is the inception score, both terms having the "
            "training prior",
            "",
            scores["regularized"],
            scores["plain"],
            "classes",
        )
    )
    return found


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """Samples of each form."""
    _gallery.samples([outcomes[f"{form}_seed0"] for form in FORMS], path)


def _fewer(claim: str, paper: str, ours: list[float], plain: list[float], unit: str) -> Claim:
    better = all(a < b for a, b in zip(ours, plain, strict=True))
    return Claim(claim, paper, _text(ours), _text(plain), unit, better)


def _more(claim: str, paper: str, ours: list[float], plain: list[float], unit: str) -> Claim:
    better = all(a > b for a, b in zip(ours, plain, strict=True))
    return Claim(claim, paper, _text(ours), _text(plain), unit, better)


def _values(outcomes: dict[str, Outcome], form: str, names: list[str], measure: str) -> list[float]:
    return [outcomes[f"{form}_{name}"].value(measure) for name in names]


def _score(outcome: Outcome) -> float:
    name = next(n for n in outcome.measures if n.startswith("mode_score_"))
    return outcome.value(name)


def _text(values: list[float]) -> str:
    return "/".join(f"{v:.4g}" for v in values)
