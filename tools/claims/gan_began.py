"""What Berthelot et al. 2017 claim of the BEGAN, measured on digits.

gamma sets the ratio of the energies and with it the diversity (section 3.3, figure 3), and M says
how far the training is (section 3.4, figure 5). The paper shows faces and curves, no numbers for
either. Energies are means over the last quarter of the training.
"""

import itertools
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
from scipy import spatial, stats

from tfgen import commands, run
from tfgen.metrics import samples
from tfgen.metrics.measure import Settings
from tfgen.training import checkpoint
from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
GAMMAS = (0.3, 0.5, 0.7)
CHECKPOINT_STEPS = 1000
SAMPLES = 1000  # Of which the distances are taken.


def runs(budget: str) -> list[Run]:
    """Each gamma with three seeds, and one run whose k stays 0 in all but name."""
    kept = (f"--checkpoint_every_steps={CHECKPOINT_STEPS}", "--keep_checkpoints=1000")
    controlled = [
        Run(
            _name(gamma, seed),
            "began_digits.cfg",
            (f"--gamma={gamma}", f"--seed={seed}", *kept),
            seed=seed,
        )
        for gamma in GAMMAS
        for seed in SEEDS
    ]
    return [*controlled, Run("without_k", "began_digits.cfg", ("--balance_rate=1e-9", *kept))]


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from the numbers of its runs."""
    free = outcomes["without_k"]
    found = []
    for gamma in GAMMAS:
        ratios = [_ratio(o) for o in _of(outcomes, gamma)]
        found.append(
            Claim(
                f"gamma = {gamma:g}: E L(G(z)) / E L(x) at the end is within 10% of it "
                "(baseline: k = 0)",
                f"{gamma:g}",
                _text(ratios),
                _text([_ratio(free)]),
                "ratio",
                all(abs(ratio - gamma) <= 0.1 * gamma for ratio in ratios),
            )
        )
    recall = "recall_digits_classifier"
    for what, unit, values in (
        ("the mean distance of two samples", "L2 norm", _by_gamma(outcomes, distance)),
        ("recall", "share", _by_gamma(outcomes, lambda o: o.value(recall))),
    ):
        found.append(
            Claim(
                f"{what} rises with gamma = {_text(GAMMAS)} (mean over seeds)",
                "figure 3, by eye",
                " < ".join(_text(v) for v in values[1:]),
                _text(values[0]),
                unit,
                all(np.mean(a) < np.mean(b) for a, b in itertools.pairwise(values)),
            )
        )
    rhos = _by_gamma(outcomes, convergence_and_fid)
    found.append(
        Claim(
            "M falls with FID over the checkpoints of a run, for every run "
            f"(gamma = {_text(GAMMAS)})",
            "figure 5, by eye",
            ", ".join(_text(v) for v in rhos),
            "0",
            "Spearman's rho",
            min(min(v) for v in rhos) > 0,
        )
    )
    return found


def distance(outcome: Outcome) -> float:
    """Mean Euclidean distance of two samples of a run's model, in [-1, 1] on all pixels."""
    model = commands.load_run(run.RunDir(outcome.path))[3]
    made = model.sample(SAMPLES, 0).numpy().reshape(SAMPLES, -1)
    return float(spatial.distance.pdist(made).mean())


def convergence_and_fid(outcome: Outcome) -> float:
    """Spearman's rho of M, averaged since the log before, and FID, over a run's checkpoints."""
    _, hp, _, model = commands.load_run(run.RunDir(outcome.path))
    data = commands.load_data(hp, None, "fail")
    measured = {line["step"]: line["convergence"] for line in _lines(outcome)}
    pairs = []
    for path in sorted((outcome.path / "checkpoints").glob("step-*.npz")):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / path.name).symlink_to(path.absolute())
            checkpoint.restore(pathlib.Path(folder), model, weights_only=True)
        (fid,) = samples.fid(model, data, Settings(num_samples=2000)).values()
        pairs.append((measured[int(model.step.numpy())], fid.value))
    return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """Ratio and k over time, and samples for each gamma."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(1, 4, figsize=(16, 4.2))
    right = axes[0].twinx()
    for gamma, axis in zip(GAMMAS, axes[1:], strict=True):
        outcome = outcomes[_name(gamma, 0)]
        lines = _lines(outcome)
        steps = [x["step"] for x in lines]
        ratios = [x["energy_fake"] / x["energy_real"] for x in lines]
        (drawn,) = axes[0].plot(steps, ratios, label=f"gamma {gamma:g}")
        axes[0].axhline(gamma, color=drawn.get_color(), linestyle=":")
        right.plot(steps, [x["k"] for x in lines], color=drawn.get_color(), alpha=0.4)
        newest = sorted((outcome.path / "samples").glob("samples-*.png"))[-1]
        axis.imshow(Image.open(newest), cmap="gray")
        axis.set_title(f"samples, gamma {gamma:g}")
        axis.axis("off")
    axes[0].set(xlabel="step", ylabel="E L(G(z)) / E L(x)", ylim=(0, 1))
    axes[0].legend()
    right.set_ylabel("k (faint)")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _name(gamma: float, seed: int) -> str:
    return f"gamma{gamma:g}_seed{seed}"


def _of(outcomes: dict[str, Outcome], gamma: float) -> list[Outcome]:
    return [outcomes[_name(gamma, seed)] for seed in SEEDS]


def _by_gamma(
    outcomes: dict[str, Outcome], measure: Callable[[Outcome], float]
) -> list[list[float]]:
    return [[measure(o) for o in _of(outcomes, gamma)] for gamma in GAMMAS]


def _lines(outcome: Outcome) -> list[dict[str, float]]:
    return [x for x in run.read_jsonl(outcome.path / "metrics.jsonl") if "epoch" in x]


def _ratio(outcome: Outcome) -> float:
    late = _lines(outcome)
    late = late[-max(1, len(late) // 4) :]
    return sum(x["energy_fake"] for x in late) / sum(x["energy_real"] for x in late)


def _text(values: Sequence[float]) -> str:
    return "/".join(f"{v:.3g}" for v in values)
