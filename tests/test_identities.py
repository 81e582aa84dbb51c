"""One rule for junk, distractors and identities, and every part of the program that asks it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import reid_tune
from reid_tune.data.account import account_for, is_used
from reid_tune.data.contact_sheet import choose_images
from reid_tune.data.data_quality import Subset, find_unmatched_queries
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.records import ImageFolder, ImageRecord, training_records
from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet, make_feature_set
from reid_tune.evaluation.openset import open_set
from reid_tune.evaluation.score import scores
from reid_tune.evaluation.thresholds import PairDistances, without_unidentified
from reid_tune.evaluation.unmatched import describe_distractor_queries, describe_unmatched_queries
from reid_tune.identities import JUNK, is_distractor, is_junk, is_person, kind_of, unmatched_queries
from reid_tune.sweep.sample_images import sample_test_images
from reid_tune.tasks.triton_e2e import sample_identities
from reid_tune.training import image_sets
from reid_tune.training.data_split import count_shared_identities

ROOT = Path(reid_tune.__file__).parent
# Identity, kind, and whether it is trained on and whether it stays in a gallery.
TABLE = [
    (-1, "junk", False, False),
    (-2, "junk", False, False),
    (-(10**12), "junk", False, False),
    (0, "distractor", False, True),
    (1, "person", True, True),
    (2, "person", True, True),
    (751, "person", True, True),
    (1501, "person", True, True),
    (10**12, "person", True, True),
]
PLAIN = (7, 8)  # identities of which every data set below has images, so that it can be used


def folder(*identities: int, cameras: tuple[int, ...] = (1, 2)) -> ImageFolder:
    records = [
        ImageRecord(Path(f"{identity:04d}_c{camera}.png"), identity, camera)
        for identity in identities
        for camera in cameras
    ]
    return ImageFolder(Path("data"), tuple(records))


def features(queries: tuple[int, ...], gallery: tuple[int, ...]) -> FeatureSet:
    """Features of queries under camera 1 and gallery images under camera 2, all at random."""
    rng = np.random.default_rng(len(queries) + len(gallery))
    sides = [
        (rng.normal(size=(len(ids), 8)).astype(np.float32), np.array(ids), np.full(len(ids), camera))
        for ids, camera in ((queries, 1), (gallery, 2))
    ]
    return make_feature_set(*sides[0], *sides[1])


@pytest.mark.parametrize(("identity", "kind", "is_trained", "stays"), TABLE)
def test_the_rule_itself(identity: int, kind: str, is_trained: bool, stays: bool) -> None:
    assert kind_of(identity) == kind
    assert (is_junk(identity), is_distractor(identity), is_person(identity)) == tuple(
        kind == name for name in ("junk", "distractor", "person")
    )
    for array in (np.array([identity, identity]), torch.tensor([identity, identity])):
        assert is_junk(array).tolist() == [kind == "junk"] * 2
        assert is_distractor(array).tolist() == [kind == "distractor"] * 2
        assert is_person(array).tolist() == [kind == "person"] * 2


@pytest.mark.parametrize(("identity", "kind", "is_trained", "stays"), TABLE)
def test_training_and_accounts_agree(identity: int, kind: str, is_trained: bool, stays: bool) -> None:
    data = folder(identity, *PLAIN)
    assert (identity in {record.identity for record in training_records(data)}) == is_trained
    assert (account_for([data], "train").used == 6) == is_trained == is_used(identity, "train")
    assert (account_for([data], "gallery").used == 6) == stays == is_used(identity, "gallery")
    assert (identity in {record.identity for row in choose_images(data.records) for record in row}) == is_trained
    assert count_shared_identities(folder(identity).records, folder(identity).records) == is_trained
    if not is_trained:
        with pytest.raises(InputError, match="has only junk"):
            training_records(folder(identity))


@pytest.mark.parametrize(("identity", "kind", "is_trained", "stays"), TABLE)
def test_the_gallery_of_every_evaluation_agrees(
    identity: int, kind: str, is_trained: bool, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = folder(identity, *PLAIN)
    query = folder(*PLAIN)
    monkeypatch.setattr(image_sets, "load_cached_images", lambda records, *args, **kwargs: np.zeros((len(records), 1)))
    images = image_sets.decode_evaluation_images(query.records, gallery.records, ImageSpec(8, 8, "bilinear"), 1)
    assert (identity in images.identities[images.queries :]) == stays
    feature_set = features((7, 8), (identity, 7, 8))
    assert (identity in feature_set.without_junk().gallery_ids) == stays
    (score,) = scores(feature_set, [None])
    assert score.gallery == 2 + stays
    assert len(without_unidentified(feature_set).gallery_ids) == 2 + stays
    _, others = sample_test_images(query, gallery)
    assert {record.identity for record in others} == {identity, *PLAIN}  # a sample keeps what is to be left out
    assert (identity in sample_identities(gallery.records, gallery.records, 9, 0)) == is_trained


@pytest.mark.parametrize(("identity", "kind", "is_trained", "stays"), TABLE)
def test_queries_of_each_kind(identity: int, kind: str, is_trained: bool, stays: bool) -> None:
    """A query matches images of its own number unless it is junk, in checks of data and in scores."""
    queries, gallery = [(identity, 1), (7, 1)], [(identity, 2), (7, 2)]
    absent, same_camera = unmatched_queries(queries, gallery)
    assert (absent, same_camera) == ([] if stays else [0], [])
    assert (describe_unmatched_queries(queries, gallery) is None) == stays
    assert (describe_distractor_queries([identity]) is not None) == (kind == "distractor")
    query, others = folder(identity, 7, cameras=(1,)), folder(identity, 7, cameras=(2,))
    findings = find_unmatched_queries(
        Subset("query", "test", "query", (query,)), Subset("gallery", "test", "gallery", (others,))
    )
    assert (list(findings) == []) == stays
    (score,) = scores(features((identity, 7), (identity, 7, 8)), [None])
    assert score.matched.tolist() == ([0, 1] if stays else [1])


@pytest.mark.parametrize(("identity", "kind", "is_trained", "stays"), TABLE)
def test_thresholds_and_open_sets_compare_persons_only(identity: int, kind: str, is_trained: bool, stays: bool) -> None:
    ids = (identity, *range(5, 45))
    feature_set = features(ids, ids)
    histograms, _ = PairDistances.of(feature_set).histograms
    same, different = histograms.sum(axis=1).tolist()
    people = 40 + is_trained
    assert same == people
    # Of two distractors it is not known whether they are one person.
    assert different == (40 + stays) ** 2 - people - (kind == "distractor")
    rows = open_set(feature_set, far=0.3, sizes=(people,), draws=1).rows
    assert [row["identities"] for row in rows] in ([], [people])


def test_the_written_numbers_have_their_kinds() -> None:
    assert kind_of(JUNK) == "junk"


IDENTITY_LOSSES = ("self.identity", "self.losses.identity")


def comparisons(code: str) -> Iterator[str]:
    """Comparisons of something called an identity with a literal -1, 0 or 1, and its truth."""
    for node in ast.walk(ast.parse(code)):
        tests: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(literal(side) for side in sides):
                tests = sides
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            tests = [node.test]
        elif isinstance(node, ast.comprehension):
            tests = node.ifs
        if any(is_identity(test) for test in tests):
            yield ast.unparse(node)


def literal(node: ast.expr) -> bool:
    return ast.unparse(node) in ("-1", "0", "1")


def is_identity(node: ast.expr) -> bool:
    """Whether an expression is the number of an identity: a name or attribute, or an item of such an array."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if ast.unparse(node) in IDENTITY_LOSSES:
        return False
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in ("identity", "ids", "pid", "pids") or name.endswith(("_ids", "_identity"))


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("record.identity > 0", 1),
        ("-1 != features.gallery_ids", 1),
        ("0 < ids[column]", 1),
        ("x = 'id' if identity else 'distractor'", 1),
        ("[r for r in records if r.identity]", 1),
        ("record.identity >= 1", 1),
        ("record.identity == other.identity", 0),
        ("len(identities) > 1", 0),
        ("is_person(record.identity)", 0),
    ],
)
def test_the_search_sees_comparisons(code: str, count: int) -> None:
    assert len(list(comparisons(code))) == count


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_compares_identities_with_numbers(path: Path) -> None:
    assert list(comparisons(path.read_text(encoding="utf-8"))) == []
