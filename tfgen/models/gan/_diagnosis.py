"""What the logs of an adversarial training say is wrong with it."""

from collections.abc import Mapping

WON = 0.01  # The discriminator's loss above its least, as a part of what it is if D cannot tell.
COLLAPSED = 0.1  # Spread of the fakes as a part of the data's.


def won(
    scale: tuple[float, float] | None, logs: Mapping[str, float], who: str, name: str
) -> dict[str, str]:
    """Whether a discriminator has won: its loss is next to the least there is.

    A critic, whose loss has no scale, never wins: it is minus a distance, without a bound, and the
    generator's gradient does not vanish where it is low.

    Args:
        scale: the least loss, and what it is if D cannot tell, or None.
        logs: means of the logs; where `name` is not among them nothing is found.
        who: what D is called.
        name: of its loss.

    Returns:
        The finding and the numbers that say so, or nothing.
    """
    loss = logs.get(name)
    if scale is None or loss is None or loss - scale[0] >= WON * (scale[1] - scale[0]):
        return {}
    beside = [
        f"{key} {logs[key]:.3g}"
        for key in ("logit_real", "logit_fake", "energy_real", "energy_fake")
        if key in logs
    ]
    text = f"{name} {loss:.3g} is next to {scale[0]:.3g}, and {scale[1]:.3g} if D cannot tell"
    return {f"{who} has won": ", ".join([text, *beside])}


def collapsed(logs: Mapping[str, float]) -> dict[str, str]:
    """Whether the generator makes almost one thing alone, by the log "spread"."""
    share = logs.get("spread")
    if share is None or share >= COLLAPSED:
        return {}
    text = f"the fakes' standard deviation is {share:.2g} of the data's, below {COLLAPSED:g}"
    return {"mode collapse": text}
