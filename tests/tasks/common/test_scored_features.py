"""Commands that score a test set are counted; those that score features of others are not, and say so."""

from pathlib import Path

import numpy as np
import pytest

from reid_tune.data.fingerprint import fingerprint
from reid_tune.demo import draw_demo_data
from reid_tune.evaluation.features import make_feature_set, write_features
from reid_tune.journal.test_set_usage import count_test_evaluations
from reid_tune.tasks.common.embedding_files import Image, open_embeddings_file
from reid_tune.tasks.common.scored_features import count_scored_features

from ...conftest import Command

DIGEST = "0123456789abcdef" * 2


def write(path: Path, images: str) -> Path:
    """Features as inference writes them, of two people and cameras."""
    draw = np.random.default_rng(0)
    with open_embeddings_file(path, images) as writer:
        for subset in ("query", "gallery"):
            pairs = [(identity, camera) for identity in (1, 2, 3, 4) for camera in (1, 2)]
            rows = [Image(Path(subset, f"{i:04d}_c{c}.jpg"), i, c, subset) for i, c in pairs]  # type: ignore[arg-type]
            writer(rows, draw.normal(size=(8, 4)).astype(np.float32))
    return path


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_features_of_one_test_set_are_one_evaluation_of_a_command(tmp_path: Path, ending: str) -> None:
    files = [write(tmp_path / f"{name}{ending}", DIGEST) for name in "ab"]
    (sentence,) = count_scored_features(files, "compare")
    assert sentence == "compare: this test set has been evaluated 1 time by this user on this machine"
    assert count_scored_features(files[:1], "score")[0].startswith("score: this test set has been evaluated 2 times")
    assert count_test_evaluations(DIGEST) == 2


@pytest.mark.parametrize("name", ["f.npz", "f.parquet", "f.json"])
@pytest.mark.parametrize("images", ["", "../../../etc/passwd", "ABC"])
def test_features_that_do_not_say_their_images_are_not_counted(tmp_path: Path, name: str, images: str) -> None:
    file = write(tmp_path / name, images)
    (sentence,) = count_scored_features([file], "score")
    assert "not counted as an evaluation of a test set" in sentence and name in sentence
    assert count_test_evaluations(images) == 0


def test_every_command_that_scores_counts(tmp_path: Path, command: Command) -> None:
    first, second = write(tmp_path / "a.npz", DIGEST), write(tmp_path / "b.npz", DIGEST)
    grid = ("--k1", "3", "--k2", "2", "--lambda", "0.5")
    calls = [("score", first), ("compare", first, second), ("rerank-search", first, *grid)]
    calls += [("threshold", first, "--fmr", "0.2")]
    for number, call in enumerate(calls, start=1):
        status, _, errors = command(*call)
        times = "1 time" if number == 1 else f"{number} times"
        assert (status, f"{call[0]}: this test set has been evaluated {times} by" in errors) == (0, True), errors
    others = make_feature_set(*(array for _ in range(2) for array in (np.eye(4), np.arange(1, 5), np.arange(4))))
    write_features(tmp_path / "others.npz", others)
    assert "not counted as an evaluation" in count_scored_features([tmp_path / "others.npz"], "score")[0]
    assert count_test_evaluations(DIGEST) == len(calls)


def test_the_fingerprint_of_a_test_set_is_that_of_the_stage_test(tmp_path: Path) -> None:
    draw_demo_data(tmp_path / "data", identities=4, images=3)
    digest = fingerprint(tmp_path / "data" / "query", tmp_path / "data" / "bounding_box_test")
    file = write(tmp_path / "a.npz", digest)
    count_scored_features([file], "score")
    assert count_test_evaluations(digest) == 1
