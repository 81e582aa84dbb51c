"""`reid-tune score` of files that people have: one sentence for each fault, and what is printed next to the metrics."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[Path], object]


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `reid-tune score` in an empty folder: its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(command, "score")


class Bomb:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def arrays(**changed: Any) -> dict[str, Any]:
    """Six queries and ten gallery images of three identities and two cameras; None leaves an array out."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for side, count in (("query", 6), ("gallery", 10)):
        arrays[f"{side}_features"] = rng.standard_normal((count, 4), dtype=np.float32)
        arrays[f"{side}_ids"] = np.arange(count) % 3 + 1
        arrays[f"{side}_cameras"] = np.arange(count) // 3 % 2 + 1
    return {name: array for name, array in (arrays | changed).items() if array is not None}


def saved(**changed: Any) -> Write:
    return lambda path: np.savez(path, **arrays(**changed))


def rows(value: float, *places: int) -> np.ndarray:
    features = np.ones((10, 4), np.float32)
    features[list(places)] = value
    return features


def cut(share: float) -> Write:
    def write(path: Path) -> None:
        saved()(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return write


def with_member(content: bytes) -> Write:
    """A file whose gallery features are these bytes."""

    def write(path: Path) -> None:
        saved(gallery_features=None)(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("gallery_features.npy", content)

    return write


def array_file(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones((3, 4)))


def text_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("query_ids.txt", "1 2 3")


BAD: dict[str, tuple[Write, str]] = {
    "nothing": (lambda path: None, "the feature file f.npz does not exist"),
    "a folder": (Path.mkdir, "f.npz is not a regular file"),
    "an empty file": (Path.touch, "f.npz is not an .npz file or is cut short"),
    "a text": (lambda path: path.write_text("0.1 0.2"), "f.npz is not an .npz file or is cut short"),
    "an .npy file": (array_file, "f.npz is one array of numpy.save, not an .npz file"),
    "half a file": (cut(0.5), "f.npz is not an .npz file or is cut short"),
    "nearly a file": (cut(0.99), "f.npz is not an .npz file or is cut short"),
    "another zip": (text_archive, "f.npz has none of the arrays query_features, query_ids"),
    "missing arrays": (saved(query_ids=None, gallery_cameras=None), "f.npz lacks query_ids, gallery_cameras"),
    "a broken member": (with_member(b"\x93NUMPY\x01\x00"), "f.npz: gallery_features is damaged"),
    "objects": (saved(query_ids=np.array([Bomb()] * 6)), "f.npz: query_ids holds Python objects"),
    "objects for features": (saved(gallery_features=np.array([[Bomb()]] * 10)), "f.npz: gallery_features holds Python"),
    "NaN": (saved(gallery_features=rows(np.nan, 3, 8)), "f.npz: row 3 of gallery_features is not finite"),
    "infinity": (saved(gallery_features=rows(-np.inf, 9)), "f.npz: row 9 of gallery_features is not finite"),
    "too large": (saved(gallery_features=np.full((10, 4), 1e60)), "f.npz: row 0 of gallery_features is not finite"),
    "zeros": (saved(gallery_features=rows(0, 7)), "f.npz: row 7 of gallery_features is all zero"),
    "negative zeros": (saved(gallery_features=rows(-0.0, 2)), "f.npz: row 2 of gallery_features is all zero"),
    "complex features": (saved(query_features=np.ones((6, 4), complex)), "f.npz: query_features has dtype complex128"),
    "real identities": (saved(query_ids=np.full(6, 1.5)), "f.npz: row 0 of query_ids is 1.5; give whole numbers"),
    "names": (saved(gallery_ids=np.array(["anna"] * 10)), "f.npz: row 0 of gallery_ids is 'anna'; give whole numbers"),
    "true or false": (saved(query_cameras=np.ones(6, bool)), "f.npz: query_cameras has dtype bool"),
    "records": (saved(query_ids=np.zeros(6, [("id", int)])), "f.npz: query_ids has dtype"),
    "beyond int64": (saved(query_ids=np.full(6, 2**63, np.uint64)), "f.npz: row 0 of query_ids is 9223372036854775808"),
    "one dimension": (saved(query_features=np.ones(6, np.float32)), "f.npz: query_features has shape (6,)"),
    "three dimensions": (saved(gallery_features=np.ones((10, 2, 2))), "f.npz: gallery_features has shape (10, 2, 2)"),
    "a single number": (saved(query_ids=np.array(3)), "f.npz: query_ids has shape ()"),
    "a table of cameras": (saved(query_cameras=np.ones((6, 2), int)), "f.npz: query_cameras has shape (6, 2)"),
    "unlike lengths": (saved(gallery_ids=np.arange(9)), "f.npz: gallery_ids has 9 values but gallery_features has 10"),
    "unlike widths": (
        saved(query_features=np.ones((6, 5))),
        "f.npz: gallery_features has 4 columns but query_features",
    ),
    "no queries": (saved(query_features=np.ones((0, 4))), "f.npz: query_features is empty"),
    "no columns": (saved(query_features=np.ones((6, 0))), "f.npz: query_features is empty"),
    "junk alone": (saved(gallery_ids=np.full(10, -1)), "f.npz: every gallery image is junk"),
    "strangers": (saved(gallery_ids=np.full(10, 9)), "f.npz: no query has a match"),
    "one camera": (
        saved(query_cameras=np.ones(6, int), gallery_cameras=np.ones(10, int)),
        "f.npz: no query has a match",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_sentence(run: Run, tmp_path: Path, name: str) -> None:
    write, sentence = BAD[name]
    write(tmp_path / "f.npz")
    status, out, err = run("f.npz")
    assert (status, out) == (2, "")
    assert err.startswith(f"reid-tune: {sentence}") and err.count("\n") == 1 and err.endswith(".\n"), err
    assert ";" in err, "it says what to do"
    assert not (tmp_path / "ran").exists(), "nothing of the file may run"


@pytest.mark.parametrize("setting", ["0,6,0.3", "20,0,0.3", "20,6,1.5", "20,6,nan", "20,6", "a,b,c", "2.5,6,0.3"])
def test_a_bad_setting_is_refused_in_one_sentence(run: Run, tmp_path: Path, setting: str) -> None:
    saved()(tmp_path / "f.npz")
    status, out, err = run("f.npz", "--re-ranking", setting)
    assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith("reid-tune: re-ranking "), err


def test_more_neighbours_than_images_are_all_images(run: Run, tmp_path: Path) -> None:
    saved()(tmp_path / "f.npz")
    settings = "32,16,0.3", f"{10**30},{10**30},0.3"
    (status, out, _), (_, more, _) = (run("f.npz", "--re-ranking", each, "--format", "json") for each in settings)
    assert status == 0 and json.loads(out) | {"protocol": ""} == json.loads(more) | {"protocol": ""}


def test_queries_without_a_match_are_told(run: Run, tmp_path: Path) -> None:
    saved(
        query_ids=np.array([1, 1, 2, 3, 77, 78]),
        query_cameras=np.array([1, 2, 1, 1, 1, 1]),
        gallery_ids=np.array([1, 2, 3, 3, 3, 1, 1, -1, 0, 0]),
        gallery_cameras=np.array([2, 2, 1, 1, 1, 1, 1, 1, 1, 1]),
    )(tmp_path / "f.npz")
    status, out, err = run("f.npz", "--format", "json")
    assert status == 0 and json.loads(out)["queries"] == 3
    *lines, count = err.splitlines(keepends=True)
    assert "".join(lines) == (
        "3 of 6 queries have no match in the gallery and count in no metric; identities absent from it: 77, 78; "
        "identities there only under the query's own camera: 3\n"
        "1 of 10 gallery rows are junk (negative identity) and left out\n"
    )
    assert count.startswith("score: not counted as an evaluation of a test set, as f.npz does not say")
    saved()(tmp_path / "f.npz")
    assert run("f.npz")[2] == count


def test_a_file_that_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    ones = np.ones(100_000, np.int64)
    features = np.zeros((100_000, 512), np.float32)
    np.savez_compressed(
        tmp_path / "f.npz", query_features=features[:1], query_ids=ones[:1], query_cameras=ones[:1],
        gallery_features=features, gallery_ids=ones, gallery_cameras=ones,
    )  # fmt: skip
    code = (
        "import resource, sys, torch, numpy\n"
        "from reid_tune.tasks import score\n"
        "from reid_tune import cli\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + 2**26\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "sys.argv = ['reid-tune', 'score', 'f.npz']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("reid-tune: f.npz does not fit into memory; ") and done.stderr.count("\n") == 1


def test_a_full_disk_of_the_output_is_one_sentence(tmp_path: Path) -> None:
    saved()(tmp_path / "f.npz")
    command = [sys.executable, "-m", "reid_tune", "score", "f.npz"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    sentence = "cannot write the output: No space left on device; free space on the disk and try again."
    assert (done.returncode, done.stderr) == (3, f"reid-tune: {sentence}\n")
