"""The picture of distances."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_tune.errors import InputError
from reid_tune.evaluation.distance_plot import distance_plot
from reid_tune.evaluation.thresholds import BINS, PairDistances

from ..helpers.evaluation_reference import made_up


@pytest.fixture(scope="module")
def pairs() -> PairDistances:
    return PairDistances.of(made_up(60, 90, identities=12))


def drawn(pairs: PairDistances, path: Path, threshold: bool = True) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        distance_plot(pairs.histograms, pairs.threshold(0.01) if threshold else None, path)
    return path.read_text()


def test_the_threshold_is_labelled_with_its_value_and_its_rates(pairs: PairDistances, tmp_path: Path) -> None:
    text, found = drawn(pairs, tmp_path / "d.svg"), pairs.threshold(0.01)
    wanted = f"threshold {found.squared_distance:.5g} (cosine {found.cosine:.5g}): FMR {100 * found.fmr:.3g} %, "
    assert f">{wanted}FNMR {100 * found.fnmr:.3g} %</text>" in text
    for count, name in ((found.same, "same identity"), (found.different, "different identities")):
        assert f">{name} ({count:,} pairs)</text>" in text
    assert ">Squared Euclidean distance<" in text and ">Cosine similarity<" in text


def test_without_a_threshold_there_is_no_line(pairs: PairDistances, tmp_path: Path) -> None:
    text = drawn(pairs, tmp_path / "d.svg", threshold=False)
    assert "threshold" not in text and "same identity" in text


def test_the_kinds_are_told_apart_by_colour_hatch_and_line(pairs: PairDistances, tmp_path: Path) -> None:
    text = drawn(pairs, tmp_path / "d.svg")
    styles = [style for style in re.findall('style="([^"]*)"', text) if "fill: url(#" in style]
    kinds = [[style for style in styles if colour in style] for colour in ("#009e73", "#d55e00")]
    assert [len(found) for found in kinds] == [2, 2]  # the histogram and its legend
    assert [["stroke-dasharray" in style for style in found] for found in kinds] == [[False] * 2, [True] * 2]
    hatches = [{style.split("url(")[1].split(")")[0] for style in found} for found in kinds]
    assert len(hatches[0] | hatches[1]) >= 2 and not hatches[0] & hatches[1]


@pytest.mark.parametrize("counts", [np.zeros((2, BINS), np.int64), np.eye(2, BINS, BINS - 2, dtype=np.int64)])
def test_few_pairs_and_none_are_drawn(counts: np.ndarray, tmp_path: Path) -> None:
    distance_plot((counts, np.linspace(0, 4, BINS + 1)), None, tmp_path / "new" / "d.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["d.png"]
    with Image.open(tmp_path / "new" / "d.png") as image:
        assert np.asarray(image).std() > 0


def test_folder_that_cannot_be_made(pairs: PairDistances, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        distance_plot(pairs.histograms, None, tmp_path / "file" / "d.png")
