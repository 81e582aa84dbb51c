"""The demo data set: identities and cameras of its images, file names and folders."""

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reid_tune.demo.appearance import draw_appearance
from reid_tune.demo.camera import CAMERAS, set_up_cameras
from reid_tune.demo.figure import VIEWS
from reid_tune.demo.image import render_image
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder
from reid_tune.identities import DISTRACTOR, JUNK, is_junk

__all__ = ["DemoSummary", "draw_demo_data"]

TRAIN, GALLERY, QUERY = "bounding_box_train", "bounding_box_test", "query"


@dataclass(frozen=True)
class DemoSummary:
    """Numbers of identities and images in a demo data set; `gallery` includes distractors and junk."""

    directory: Path
    identities: int
    train: int
    query: int
    gallery: int
    distractors: int
    junk: int


@dataclass(frozen=True)
class _Box:
    """One image to draw: `person` is the drawn identity (None: nobody), `identity` the one in its file name."""

    folder: str
    identity: int
    person: int | None
    camera: int
    view: str
    sequence: int
    frame: int

    @property
    def name(self) -> str:
        number = str(JUNK) if is_junk(self.identity) else f"{self.identity:04d}"
        return f"{number}_c{self.camera}s{self.sequence}_{self.frame:06d}_01.jpg"


def draw_demo_data(
    directory: Path,
    *,
    identities: int = 120,
    images: int = 8,
    seed: int = 0,
    difficulty: float = 0.6,
    progress: Callable[[int, int], None] | None = None,
) -> DemoSummary:
    """Draw training, query and gallery images of pedestrians into a new folder, in Market-1501's layout.

    The same arguments give the same bytes, and an identity's images do not depend on the number of identities.
    Training identities have even numbers, test identities odd ones. Each is seen by two to four cameras, and each test
    identity has one query per camera that sees it.

    Args:
        directory: A new or empty folder.
        identities: Number of training identities, and of test identities; at least 2.
        images: Mean number of images per identity, without queries; at least 2.
        seed: Seed of all random numbers.
        difficulty: Difficulty, 0..1: similar clothes, unusual light and colours, bad boxes, obstacles, blur.
        progress: Callback with the number of images drawn and the number of all images.

    Raises:
        InputError: The folder is not empty or an argument is out of its range; nothing was written.
        InfrastructureError: The disk failed; no partial data are left.
    """
    _check(identities, images, difficulty)
    boxes = [box for i in range(1, identities + 1) for box in _boxes(i, images, seed)]
    directory = directory.resolve()
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise InputError(f"{directory} is not an empty folder; give the name of a new one.")
        make_folder(directory.parent)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as temporary:
            whole = Path(temporary, "whole")
            _draw(boxes, whole, seed, difficulty, progress or (lambda done, total: None))
            os.replace(whole, directory)
    except OSError as error:
        raise InfrastructureError(f"cannot draw into {directory}: {error.strerror}; choose another folder.") from error
    return _summary(directory, identities, boxes)


def _check(identities: int, images: int, difficulty: float) -> None:
    for name, value in (("identities", identities), ("images", images)):
        if value < 2:
            raise InputError(f"{name} is {value}, but a data set needs at least 2; give a larger number.")
    if not 0 <= difficulty <= 1:
        raise InputError(
            f"difficulty is {difficulty}, but must be between 0 (easy) and 1 (hard); give a number in this range."
        )


def _boxes(index: int, images: int, seed: int) -> Iterator[_Box]:
    """Yield all images that the `index`-th pair of a training and a test identity adds to the data set."""
    train, test = 2 * index, 2 * index - 1
    yield from _tracks(train, images, seed, TRAIN)
    yield from _tracks(test, images, seed, GALLERY)
    rng = random.Random(f"{seed}/others/{test}")
    first = test * max(100, images)
    for frame in range(first, first + max(1, images // 5)):
        stranger = rng.choice((None, -frame))
        yield _Box(GALLERY, DISTRACTOR, stranger, rng.randint(1, CAMERAS), rng.choice(VIEWS), 1, frame)
    for frame in range(first, first + max(1, images // 8)):
        yield _Box(GALLERY, JUNK, test, rng.randint(1, CAMERAS), rng.choice(VIEWS), 1, frame)


def _tracks(identity: int, images: int, seed: int, folder: str) -> Iterator[_Box]:
    """Yield the images of one identity at two to four cameras; at each, a test identity also has a query."""
    rng = random.Random(f"{seed}/tracks/{identity}")
    count = images + rng.randint(-(images // 4), images // 4)
    cameras = rng.sample(range(1, CAMERAS + 1), min(rng.randint(2, 4), count))
    for i, camera in enumerate(cameras):
        view = rng.choice((*VIEWS, "usual", "usual", "usual", "usual"))
        sequence, frame = rng.randint(1, 6), rng.randint(100, 90_000)
        folders = [folder] * len(range(i, count, len(cameras))) + [QUERY] * (folder == GALLERY)
        for step, name in enumerate(folders):
            yield _Box(name, identity, identity, camera, view, sequence, frame + 25 * step)


def _draw(
    boxes: list[_Box], directory: Path, seed: int, difficulty: float, progress: Callable[[int, int], None]
) -> None:
    cameras = set_up_cameras(seed, difficulty)
    for folder in (TRAIN, GALLERY, QUERY):
        (directory / folder).mkdir(parents=True)
    for done, box in enumerate(boxes, start=1):
        rng = random.Random(f"{seed}/shot/{box.folder}/{box.name}")
        appearance = None if box.person is None else draw_appearance(seed, box.person, difficulty)
        camera = cameras[box.camera]
        view = camera.view if box.view == "usual" else box.view
        content = render_image(appearance, camera, view, difficulty, rng, cut=box.identity == JUNK)
        (directory / box.folder / box.name).write_bytes(content)
        progress(done, len(boxes))


def _summary(directory: Path, identities: int, boxes: list[_Box]) -> DemoSummary:
    folders = Counter(box.folder for box in boxes)
    others = Counter(box.identity for box in boxes)
    return DemoSummary(
        directory, identities, folders[TRAIN], folders[QUERY], folders[GALLERY], others[DISTRACTOR], others[JUNK]
    )
