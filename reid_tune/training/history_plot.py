"""Plot of the history of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_tune.evaluation.plots import make_figure
from reid_tune.files import atomic_path

__all__ = ["plot_history"]


def plot_history(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the learning rate and the loss by epoch, and the mAP in percent of the epochs with a validation.

    Args:
        history: Metrics of the epochs, from the first.
        path: File to write.

    Raises:
        InputError: The folder cannot be written.
    """
    epochs = range(1, len(history) + 1)
    figure, losses = make_figure(6.4, 4.2)
    rates = losses.twinx()
    lines = [*losses.plot(epochs, [epoch["loss"] for epoch in history], color="#0072B2", label="loss")]
    lines += rates.plot(
        epochs, [epoch["lr"] for epoch in history], color="#D55E00", linestyle="--", label="learning rate"
    )
    losses.set(xlabel="Epoch", ylabel="Loss", title="Training", ylim=(0, None))
    rates.set(ylabel="Learning rate", ylim=(0, None))
    if validated := [(number, epoch["mAP"]) for number, epoch in zip(epochs, history, strict=True) if "mAP" in epoch]:
        lines += losses.plot([], [], color="#009E73", linestyle=":", marker="o", label="mAP of the validation (%)")
        scores = losses.twinx()
        scores.spines["right"].set_position(("outward", 50))
        scores.plot(*zip(*validated, strict=True), color="#009E73", linestyle=":", marker="o")
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
