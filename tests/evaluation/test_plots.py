"""The picture of CMC curves."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reid_tune.errors import InputError
from reid_tune.evaluation.plots import cmc_plot


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


def test_folder_that_cannot_be_made(tmp_path, curves):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        cmc_plot(curves, tmp_path / "file" / "cmc.png")


def test_matplotlib_is_imported_late():
    code = "import sys, reid_tune.evaluation.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
