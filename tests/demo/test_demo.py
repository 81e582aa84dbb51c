"""The demo data set: what its files are called, who is on them, and what difficulty does."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_tune.demo import DemoSummary, draw_demo_data
from reid_tune.demo.camera import set_up_cameras
from reid_tune.errors import InfrastructureError, InputError

FOLDERS = ("bounding_box_train", "bounding_box_test", "query")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DemoSummary:
    return draw_demo_data(tmp_path_factory.mktemp("demo") / "set", identities=8, images=4)


def read_names(folder: Path) -> list[tuple[int, int]]:
    """(identity, camera) of each file."""
    matches = [re.match(r"^(-?\d+)_c(\d+)", path.name) for path in sorted(folder.iterdir())]
    return [(int(match[1]), int(match[2])) for match in matches if match]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_arguments_give_the_same_bytes(drawn: DemoSummary, tmp_path: Path) -> None:
    draw_demo_data(tmp_path, identities=8, images=4)
    assert contents(tmp_path) == contents(drawn.directory)


@pytest.mark.parametrize("change", [{"seed": 1}, {"difficulty": 0.5}])
def test_seed_and_difficulty_change_the_pictures(drawn: DemoSummary, tmp_path: Path, change: dict[str, Any]) -> None:
    draw_demo_data(tmp_path, identities=8, images=4, **change)
    assert not set(contents(tmp_path).values()) & set(contents(drawn.directory).values())


def test_an_identity_looks_the_same_in_a_larger_set(drawn: DemoSummary, tmp_path: Path) -> None:
    draw_demo_data(tmp_path, identities=5, images=4)
    assert contents(tmp_path).items() < contents(drawn.directory).items()


def test_layout_and_names(drawn: DemoSummary) -> None:
    assert sorted(path.name for path in drawn.directory.iterdir()) == sorted(FOLDERS)
    names = [path.name for folder in FOLDERS for path in (drawn.directory / folder).iterdir()]
    assert all(re.fullmatch(r"(-1|\d{4})_c[1-6]s[1-6]_\d{6}_\d{2}\.jpg", name) for name in names)


def test_summary_counts_the_files(drawn: DemoSummary) -> None:
    train, gallery, query = (read_names(drawn.directory / folder) for folder in FOLDERS)
    assert (drawn.train, drawn.gallery, drawn.query) == (len(train), len(gallery), len(query))
    assert drawn.junk == sum(identity == -1 for identity, _ in gallery) > 0
    assert drawn.distractors == sum(identity == 0 for identity, _ in gallery) > 0
    assert drawn.identities == len({identity for identity, _ in train}) == len({identity for identity, _ in query})


def test_training_and_test_identities_are_disjoint(drawn: DemoSummary) -> None:
    train, gallery, query = ({i for i, _ in read_names(drawn.directory / folder)} for folder in FOLDERS)
    assert min(train) > 0
    assert not train & (gallery | query)
    assert query == gallery - {0, -1}


@pytest.mark.parametrize("images", [2, 3, 7])
def test_each_query_has_a_match_in_another_camera(tmp_path: Path, images: int) -> None:
    draw_demo_data(tmp_path, identities=30, images=images)
    train, gallery, query = (read_names(tmp_path / folder) for folder in FOLDERS)
    assert len(query) == len(set(query))
    assert set(query) == {(identity, camera) for identity, camera in gallery if identity > 0}
    for identity in {identity for identity, _ in train}:
        assert 2 <= len({camera for i, camera in train if i == identity}) <= 4
    for identity, camera in query:
        assert any(i == identity and c != camera for i, c in gallery)


def test_number_of_images_is_the_wanted_average(tmp_path: Path) -> None:
    summary = draw_demo_data(tmp_path, identities=24, images=8)
    assert summary.train / 24 == pytest.approx(8, abs=0.8)
    assert (summary.gallery - summary.junk - summary.distractors) / 24 == pytest.approx(8, abs=0.8)


def test_images_are_64_wide_and_128_high(drawn: DemoSummary) -> None:
    for path in drawn.directory.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_no_two_images_are_equal(drawn: DemoSummary) -> None:
    pictures = contents(drawn.directory)
    assert len(set(pictures.values())) == len(pictures)


def test_a_folder_with_files_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        draw_demo_data(tmp_path / "set", identities=2, images=2)
    assert contents(tmp_path) == {"set/mine.txt": b"mine"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        draw_demo_data(tmp_path / "set", identities=2, images=2)
    assert contents(tmp_path) == {"set": b"mine"}


@pytest.mark.parametrize(
    ("argument", "value"),
    [("identities", 1), ("images", 1), ("difficulty", -0.1), ("difficulty", 1.1), ("difficulty", float("nan"))],
)
def test_bad_arguments_name_themselves(tmp_path: Path, argument: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{argument} is {value}, .*\.$"):
        arguments: dict[str, Any] = {argument: value}
        draw_demo_data(tmp_path / "set", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_on_the_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 10:
            raise fault

    with pytest.raises((InfrastructureError, KeyboardInterrupt)):
        draw_demo_data(tmp_path / "set", identities=4, images=4, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    summary = draw_demo_data(tmp_path, identities=2, images=2, progress=lambda done, total: steps.append((done, total)))
    total = summary.train + summary.query + summary.gallery
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_no_two_cameras_see_alike() -> None:
    cameras = set_up_cameras(seed=3, difficulty=0.5).values()
    for values in zip(*((c.light, c.tint, c.contrast, c.blur, c.scene.tobytes()) for c in cameras), strict=True):
        assert len(set(values)) == len(cameras)


def histogram(path: Path) -> np.ndarray:
    """Square roots of the colour counts (4 x 4 x 4) in six stripes, unit length."""
    levels = np.asarray(Image.open(path)).astype(int) // 64
    bins = levels @ np.array([16, 4, 1])
    stripes = np.concatenate([np.bincount(part.ravel(), minlength=64) for part in np.array_split(bins, 6)])
    root = np.sqrt(stripes)
    return root / np.linalg.norm(root)


def cross_camera_mean_ap(root: Path) -> float:
    paths = [path for path in sorted((root / "bounding_box_test").iterdir()) if not path.name.startswith("-1")]
    gallery = np.stack([histogram(path) for path in paths])
    who = [name for name in read_names(root / "bounding_box_test") if name[0] != -1]
    precisions = []
    for path, (identity, camera) in zip(sorted((root / "query").iterdir()), read_names(root / "query"), strict=True):
        order = np.argsort(-gallery @ histogram(path))
        hits = [who[i][0] == identity for i in order if who[i] != (identity, camera)]
        precisions.append(np.mean([sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit]))
    return float(np.mean(precisions))


def test_difficulty_makes_colours_tell_less(tmp_path: Path) -> None:
    easy, default, hard = (
        cross_camera_mean_ap(draw_demo_data(tmp_path / str(x), identities=30, images=4, difficulty=x).directory)
        for x in (0.0, 0.5, 1.0)
    )
    assert easy > default + 0.1 > hard + 0.2
