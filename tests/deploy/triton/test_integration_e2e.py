"""A sample of a test set through the genuine server and back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_tune.data.records import read_image_folder
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.evaluation.features import make_feature_set
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import scores
from reid_tune.tasks.triton_e2e import sample_identities

from ...helpers.triton_server import Triton, needs_triton, triton_program
from .conftest import expected

pytestmark = [pytest.mark.integration, needs_triton]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_end_to_end(command: Run, data: Path, tmp_path: Path) -> Run:
    """The command on the test folders of the data, four identities of them."""

    def run(*options: object, query: Path = data / "query") -> tuple[int, str, str]:
        folders = (query, "--test_dir", data / "bounding_box_test", "--output_path", tmp_path / "e2e")
        return command("triton", "e2e", *folders, "--identities", "4", "--format", "json", *options)

    return run


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_end_to_end_has_the_scores_of_the_deployed_file(
    protocol: str, run_end_to_end: Run, server: Triton, models: dict[str, OnnxModel], data: Path, tmp_path: Path
) -> None:
    status, out, err = run_end_to_end("-m", "small", "-i", protocol, "-u", getattr(server, protocol))
    assert status == 0, err
    found, written = json.loads(out), json.loads((tmp_path / "e2e" / "metrics.json").read_text())
    assert written["identities"] == 4 and {key: written[key] for key in found} == found
    folders = [read_image_folder(data / name).records for name in ("query", "bounding_box_test")]
    chosen = sample_identities(*folders, 4, seed=0)
    sides = [[record for record in records if record.identity in chosen] for records in folders]
    arrays = [
        array
        for side in sides
        for array in (
            expected(models["floats"], [record.path for record in side]),
            np.array([record.identity for record in side]),
            np.array([record.camera for record in side]),
        )
    ]
    kinds = dict(zip(("plain", "re_ranked"), scores(make_feature_set(*arrays), [None, ReRanking()]), strict=True))
    for kind, wanted in kinds.items():
        values = wanted.as_dict()
        assert {key: found[kind][key] for key in values} == pytest.approx(values, abs=1e-6)
    for picture in ("sampled_matches.png", "cmc_curve.png"):
        assert min(Image.open(tmp_path / "e2e" / picture).size) > 300


def test_end_to_end_on_a_server_of_its_own(run_end_to_end: Run, repository: Path, data: Path, tmp_path: Path) -> None:
    query = tmp_path / "query"
    shutil.copytree(data / "query", query)
    broken = min(path for path in query.iterdir() if not path.name.startswith(("-1", "0000")))
    broken.write_bytes(b"no image")
    with triton_program(tmp_path) as program:
        options = ("-m", "floats", "--identities", "8", "--repository", repository, "--server", program)
        status, out, err = run_end_to_end(*options, query=query)
        assert status == 0 and f"left out: cannot read the image {broken}" in err, err
        assert "\n1 left out\n" in err
        assert json.loads(out)["plain"]["queries"] > 4
        status, _, err = run_end_to_end(*options, "-u", "localhost:8000")
        assert status == 2 and "which is not at -u localhost:8000: give one of the two." in err
        status, _, err = run_end_to_end("-m", "small", "-b", "5", *options[4:])
        assert status == 2 and "-b 5: the model takes 1 to 4 images in a request." in err


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    run_end_to_end: Run, server: Triton, tmp_path: Path
) -> None:
    (tmp_path / "e2e").write_text("a file")
    status, _, err = run_end_to_end("-m", "floats", "-u", server.http)
    assert status == 2 and str(tmp_path / "e2e") in err and "Traceback" not in err
