"""The picture of CMC curves."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_tune.errors import InputError
from reid_tune.evaluation.plots import Frame, cmc_plot, matches_plot


@pytest.fixture
def curves():
    return {"plain": np.linspace(0.6, 0.9, 50), "re-ranked": np.linspace(0.7, 0.93, 50)}


def test_picture_is_written_whole(tmp_path, curves):
    cmc_plot(curves, tmp_path / "plots" / "cmc.png")
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["cmc.png"]
    with Image.open(tmp_path / "plots" / "cmc.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours


def test_names_and_rates_are_in_the_picture(tmp_path, curves):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        cmc_plot(curves | {"one": np.array([0.5])}, tmp_path / "cmc.svg")
    text = (tmp_path / "cmc.svg").read_text()
    for wanted in ("plain (60.0 % at rank 1)", "re-ranked (70.0 % at rank 1)", "Rank", "Matching rate (%)"):
        assert wanted in text


def test_many_curves_of_any_name_are_told_apart_without_colour_above_their_legend(tmp_path):
    import matplotlib

    names = ["_first.npz", "a$b$.npz", "x" * 90, "<d>.npz", *"efgh"]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        cmc_plot({name: np.linspace(0.2, 0.95, 50) for name in names}, tmp_path / "cmc.svg")
    text = (tmp_path / "cmc.svg").read_text()
    for name in names:
        assert f">{name.replace('<', '&lt;').replace('>', '&gt;')} (20.0 % at rank 1)</text>" in text
    curves, legend = text.split('<g id="legend_1">')
    shapes = dict(re.findall(r'<path id="(m\w+)" d="([^"]+)"', curves))
    assert len({shapes[name] for name in re.findall(r'xlink:href="#(m\w+)"', legend)}) == 8
    _, y, _, height = map(float, re.findall(r'<rect x="(.+)" y="(.+)" width="(.+)" height="(.+)"/>', legend)[0])
    assert min(float(line) for line in re.findall(r'<text [^>]*y="([\d.]+)"', legend)) > y + height


def test_folder_that_cannot_be_made(tmp_path, curves):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        cmc_plot(curves, tmp_path / "file" / "cmc.png")


@pytest.mark.parametrize("ranks", [1, 3, 10, 50, 400])
def test_any_number_of_ranks_has_few_ticks(tmp_path, ranks):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        cmc_plot({"plain": np.linspace(0.5, 0.9, ranks)}, tmp_path / "cmc.svg")
    labels = re.findall(r">(\d+)</text>", (tmp_path / "cmc.svg").read_text())
    assert "1" in labels and len(labels) < 70


def frame(value, correct=None):
    return Frame(np.full((8, 4, 3), value, np.uint8), f"id {value}", correct)


ROWS = [[frame(10), frame(11, True), frame(12, False)], [frame(20), frame(21, False)]]


def test_queries_and_matches_are_told_apart_by_colour_and_by_line(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        matches_plot(ROWS, 3, "Sampled matches: plain", tmp_path / "m.svg")
    text = (tmp_path / "m.svg").read_text()
    for wanted in ("Sampled matches: plain", "Query", "Rank 1", "Rank 3", "id 12", "other identity", "same identity"):
        assert f">{wanted}</text>" in text
    assert "Rank 4" not in text
    # The legend has one line of each kind beside the frames of the five images.
    drawn = re.findall('style="([^"]*)"', text)
    colours = ("#0072b2", "#009e73", "#d55e00")
    styles = [[style for style in drawn if f"stroke: {colour}" in style] for colour in colours]
    assert [len(found) for found in styles] == [3, 2, 3]
    assert [sum("stroke-dasharray" in style for style in found) for found in styles] == [0, 0, 3]


def test_matches_in_pixels(tmp_path):
    matches_plot(ROWS, 2, "t", tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73), (10, 10, 10), (21, 21, 21)} <= colours


@pytest.mark.parametrize("rows, ranks", [(300, 1), (1, 300)])
def test_long_pictures_fit_what_can_be_drawn(tmp_path, rows, ranks):
    matches_plot([[frame(1), frame(2, True)]] * rows, ranks, "t", tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert max(image.size) <= 30_001 and image.size[0] * image.size[1] < 1.01e8


def test_matplotlib_is_imported_late():
    modules = "reid_tune.evaluation.plots, reid_tune.evaluation.distance_plot"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
