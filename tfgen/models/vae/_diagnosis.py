"""What is wrong with the training of a VAE, by its logs; see `GenerativeModel.diagnose`."""

from collections.abc import Mapping

COLLAPSED = 0.1  # KL of all latents together, in nats, below which they carry nothing.


def collapse(logs: Mapping[str, float]) -> dict[str, str]:
    """Whether a posterior has become its prior, so that its latents say nothing of the image.

    Args:
        logs: with the KL of each group of latents under a name that begins with "kl".
    """
    kls = {name: value for name, value in logs.items() if name.startswith("kl")}
    low = [f"{name} {kl:.2g}" for name, kl in kls.items() if kl < COLLAPSED]
    if not low:
        return {}
    return {"posterior collapse": f"{', '.join(low)} nats, below {COLLAPSED:g}"}
