from pathlib import Path

import matplotlib.image
import numpy as np

from reid_tune.training.history_plot import plot_history


def test_the_picture_has_a_line_for_each_quantity(tmp_path: Path) -> None:
    history = [{"loss": 4 / epoch, "lr": 1e-3 * epoch} for epoch in range(1, 6)]
    history[2]["mAP"] = history[4]["mAP"] = 0.5
    plot_history(history, tmp_path / "with.png")
    plot_history([{key: epoch[key] for key in ("loss", "lr")} for epoch in history], tmp_path / "without.png")
    shown = {name: colours(tmp_path / f"{name}.png") for name in ("with", "without")}
    loss, rate, score = (0, 114, 178), (213, 94, 0), (0, 158, 115)
    assert {loss, rate, score} <= shown["with"] and {loss, rate} <= shown["without"] and score not in shown["without"]


def colours(path: Path) -> set[tuple[int, ...]]:
    image = np.round(255 * matplotlib.image.imread(path)[..., :3]).astype(int)
    return {tuple(map(int, colour)) for colour in np.unique(image.reshape(-1, 3), axis=0)}
