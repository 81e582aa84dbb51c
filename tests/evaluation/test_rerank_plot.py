"""The picture of a search over the re-ranking."""

from itertools import product
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from reid_tune.errors import InputError
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_plot import rerank_plot

SETTINGS = [ReRanking(*values) for values in product((5, 20), (1, 6, 10), (0.0, 0.3, 0.5, 1.0))]


def test_every_value_stands_in_its_field(tmp_path: Path) -> None:
    values = [0.5 + 0.0111 * place for place in range(len(SETTINGS))]
    values[7] = 0.9
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        rerank_plot(SETTINGS[::-1], values[::-1], "mINP", 0.4321, tmp_path / "l.svg")
    text = (tmp_path / "l.svg").read_text()
    for value in values:
        assert f">{100 * value:.1f}</text>" in text
    for wanted in ("lambda = 0", "lambda = 0.3", "lambda = 0.5", "lambda = 1", "mINP (%)"):
        assert f">{wanted}</text>" in text
    assert ">mINP after re-ranking: best 90.0 % (framed), without 43.2 %</text>" in text


def test_one_setting_is_a_landscape_too(tmp_path: Path) -> None:
    rerank_plot([ReRanking()], [0.5], "mAP", 0.4, tmp_path / "l.png")
    assert Image.open(tmp_path / "l.png").size[0] > 600
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        rerank_plot([ReRanking()], [0.5], "mAP", 0.4, tmp_path / "file" / "l.png")
