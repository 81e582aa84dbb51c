import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from reid_tune.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.data.records import read_image_folder
from reid_tune.errors import InputError
from reid_tune.evaluation.features import read_features
from reid_tune.tasks.common.model_scores import evaluation_features as features_of_folders
from reid_tune.tasks.common.open_model import open_network
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.inference import run_inference
from reid_tune.tasks.score import run_score
from reid_tune.training.image_sets import load_training_images

from ..helpers.small_networks import SMALL_SWIN
from .conftest import write_checkpoint

Spec = Callable[..., Experiment]
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Paths and embeddings of a JSON file."""
    rows = json.loads(path.read_text())
    assert all(list(row) == ["img_path", "embedding"] for row in rows)
    return [row["img_path"] for row in rows], np.array([row["embedding"] for row in rows], np.float32)


def slow_embeddings(
    checkpoint: Path, experiment: Experiment, paths: Sequence[str], resize: Image.Resampling
) -> np.ndarray:
    """One image at a time: PIL's resize, the formula of the normalisation, the network."""
    model, dataset = experiment.model, experiment.dataset
    network, _ = open_network(checkpoint, experiment)
    rows = []
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((model.input_width, model.input_height), resize))
        values = (pixels / 255 - np.array(dataset.pixel_mean)) / np.array(dataset.pixel_std)
        with torch.no_grad():
            rows.append(network(torch.tensor(values.transpose(2, 0, 1)[None], dtype=torch.float32)).numpy()[0])
    return np.array(rows)


@pytest.fixture
def gallery(data: Path, tmp_path: Path) -> Path:
    """The gallery of the demo, with names that do not parse and files that are no images."""
    folder = tmp_path / "gallery"
    shutil.copytree(data / "bounding_box_test", folder)
    some = next(folder.iterdir())
    shutil.copy(some, folder / "somebody.JPG")
    shutil.copy(some, folder / "000 nobody.png")
    shutil.copy(some, folder / ".hidden.jpg")
    (folder / "Thumbs.db").write_text("")
    (folder / "more.jpg").mkdir()
    return folder


def test_every_image_is_in_the_file_in_order(
    checkpoint: Path, spec: Spec, data: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = spec(
        inference__checkpoint=str(checkpoint), inference__test_dataset=str(gallery), dataset__val_batch_size=7
    )
    found = run_inference(experiment)
    names = [
        sorted(str(path) for path in folder.iterdir() if path.is_file() and path.suffix.lower() in (".jpg", ".png"))
        for folder in (data / "query", gallery)
    ]
    names[1] = [name for name in names[1] if not Path(name).name.startswith(".")]
    assert found.path == tmp_path / "results/inference/embeddings.json"
    paths, embeddings = read(found.path)
    assert paths == names[0] + names[1] and embeddings.shape == (len(paths), 24)
    assert (found.queries, found.gallery, found.unparsed, found.dimension) == (len(names[0]), len(names[1]), 2, 24)
    assert len(paths) % 7 != 0 and len({row.tobytes() for row in embeddings}) > len(paths) - 4
    assert any("/-1_c" in path for path in paths) and any("/0000_c" in path for path in paths)
    lengths = np.linalg.norm(embeddings, axis=1)
    assert lengths.max() / lengths.min() > 1.001  # not normalised
    some = [0, 9, len(paths) - 1]
    wanted = slow_embeddings(checkpoint, experiment, [paths[place] for place in some], BILINEAR)
    np.testing.assert_allclose(embeddings[some], wanted, atol=1e-4 * np.abs(wanted).max())
    out, err = capsys.readouterr()
    assert out == "" and "inference: no GPU, the CPU" in err and "\x1b" not in err
    assert "2 of them without identity" in str(found)


def test_the_files_form_is_the_documented_one(checkpoint: Path, spec: Spec) -> None:
    text = run_inference(spec(inference__checkpoint=str(checkpoint))).path.read_text()
    assert text.startswith('[\n  {\n    "img_path": "') and text.endswith("]\n  }\n]\n")
    assert '\n  },\n  {\n    "img_path"' in text and '",\n    "embedding": [' in text


def test_numbers_read_back_to_the_same_bits_in_all_formats(
    checkpoint: Path, spec: Spec, gallery: Path, tmp_path: Path
) -> None:
    from pyarrow import parquet

    values = {"inference__checkpoint": str(checkpoint), "inference__test_dataset": str(gallery)}
    files = [tmp_path / "new" / f"e.{ending}" for ending in ("json", "NPZ", "parquet")]
    found = [run_inference(spec(**values, inference__output_file=str(file))) for file in files]
    assert [(f.queries, f.gallery, f.unparsed) for f in found] == [(found[0].queries, found[0].gallery, 2)] * 3
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(file.name for file in files)
    paths, embeddings = read(files[0])
    features = read_features(files[1])
    joined = np.concatenate([features.query_features, features.gallery_features])
    assert joined.tobytes() == embeddings.tobytes()
    ids = np.concatenate([features.query_ids, features.gallery_ids]).tolist()
    cameras = np.concatenate([features.query_cameras, features.gallery_cameras]).tolist()
    for path, identity, camera in zip(paths, ids, cameras, strict=True):
        name = Path(path).name
        wanted = (int(name.split("_")[0]), int(name.split("_c")[1][0])) if "_c" in name else (-1, -1)
        assert (identity, camera) == wanted
    table = parquet.read_table(files[2])
    assert table.column_names == ["img_path", "identity", "camera", "subset", "embedding"]
    assert str(table.schema.field("embedding").type) in ("list<element: float>", "list<item: float>")
    rows = table.to_pydict()
    assert (rows["img_path"], rows["identity"], rows["camera"]) == (paths, ids, cameras)
    assert rows["subset"] == ["query"] * found[0].queries + ["gallery"] * found[0].gallery
    assert np.array(rows["embedding"], np.float32).tobytes() == embeddings.tobytes()


@pytest.mark.parametrize("reranking", [True, False])
def test_score_of_the_file_equals_evaluate(checkpoint: Path, spec: Spec, tmp_path: Path, reranking: bool) -> None:
    file = tmp_path / "e.npz"
    run_inference(spec(inference__checkpoint=str(checkpoint), inference__output_file=str(file)))
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), re_ranking__k1=7, re_ranking__lambda_value=0.5))
    wanted = found.as_dict()["re_ranked" if reranking else "plain"]
    scored = run_score(file, "7,6,0.5" if reranking else None).as_dict()
    assert list(scored) == [*wanted, "junk"]
    for name in list(wanted)[:7]:
        assert scored[name] == pytest.approx(wanted[name], abs=1e-9)


def test_more_images_than_fit_one_part(checkpoint: Path, spec: Spec, data: Path, tmp_path: Path) -> None:
    originals = sorted((data / "bounding_box_test").iterdir())[:30]
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1100):
        os.link(originals[number % 30], folder / f"0001_c1s1_{number:06d}_00.jpg")
    values = {"dataset__query_dataset_dir": None, "inference__test_dataset": str(folder)}
    found = run_inference(spec(inference__checkpoint=str(checkpoint), **values))
    assert (found.queries, found.gallery) == (0, 1100)
    paths, embeddings = read(found.path)
    assert paths == sorted(str(path) for path in folder.iterdir())
    np.testing.assert_allclose(embeddings, np.resize(embeddings[:30], embeddings.shape), atol=1e-4)


def test_a_swin_sees_bicubic_images_everywhere(spec: Spec, data: Path, tmp_path: Path) -> None:
    swin = {
        "model__backbone": SMALL_SWIN,
        "train__optim__warmup_method": "linear",
        "model__input_height": 64,
        "model__input_width": 32,
        "dataset__query_dataset_dir": str(tmp_path / "query"),
        "dataset__test_dataset_dir": str(tmp_path / "gallery"),
    }
    for name, source, count in (("query", "query", 2), ("gallery", "bounding_box_test", 12)):
        (tmp_path / name).mkdir()
        for path in sorted((data / source).iterdir(), reverse=True)[:count]:
            shutil.copy(path, tmp_path / name)
    experiment = spec(**swin)
    path = write_checkpoint(tmp_path / "trained" / "swin.pth", experiment)
    paths, embeddings = read(run_inference(spec(**swin, inference__checkpoint=str(path))).path)
    wanted = slow_embeddings(path, experiment, paths, BICUBIC)
    np.testing.assert_allclose(embeddings, wanted, atol=1e-4 * np.abs(wanted).max())

    features, _ = features_of_folders(
        experiment, path, str(tmp_path / "query"), str(tmp_path / "gallery"), torch.device("cpu")
    )
    together = np.concatenate([features.query_features, features.gallery_features])
    np.testing.assert_allclose(together, wanted, atol=1e-4 * np.abs(wanted).max())

    records = read_image_folder(data / "bounding_box_train").records[:8]
    trained_on = load_training_images(experiment, records).images
    for record, image in zip(records, trained_on, strict=True):
        with Image.open(record.path) as opened:
            small = np.asarray(opened.convert("RGB").resize((32, 64), Image.Resampling.BICUBIC))
        assert (image == small).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_onnx_file_says_how_its_images_are_resized(
    checkpoint: Path, spec: Spec, tmp_path: Path, interpolation: str
) -> None:
    """That the file of a Swin says bicubic is tested with the export."""
    file, _ = run_export(None, str(checkpoint), {})
    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key != "crc32"}
    onnx.helper.set_model_props(model, metadata | {"interpolation": interpolation})
    model.producer_name = "another"
    onnx.save(model, file)
    paths, embeddings = read(run_inference(spec(inference__checkpoint=str(file))).path)
    resize = {"bilinear": BILINEAR, "bicubic": BICUBIC}
    wanted = {name: slow_embeddings(checkpoint, spec(), paths[:9], how) for name, how in resize.items()}
    differences = {name: np.abs(rows - embeddings[:9]).max() / np.abs(rows).max() for name, rows in wanted.items()}
    assert differences.pop(interpolation) < 1e-3 < 1e-2 < min(differences.values())


def test_a_grey_model_sees_grey_images(spec: Spec, tmp_path: Path) -> None:
    experiment = spec(model__input_channels=1)
    path = write_checkpoint(tmp_path / "trained" / "grey.pth", experiment)
    paths, embeddings = read(run_inference(spec(model__input_channels=1, inference__checkpoint=str(path))).path)
    with Image.open(paths[0]) as image:
        grey = np.asarray(image.convert("L").resize((16, 32), BILINEAR))
    values = (grey / 255 - experiment.dataset.pixel_mean[0]) / experiment.dataset.pixel_std[0]
    network, _ = open_network(path, experiment)
    with torch.no_grad():
        wanted = network(torch.tensor(values[None, None], dtype=torch.float32)).numpy()[0]
    np.testing.assert_allclose(embeddings[0], wanted, atol=1e-4 * np.abs(wanted).max())
    file, _ = run_export(None, str(path), {})
    values = {"inference__checkpoint": str(file), "inference__output_file": str(tmp_path / "onnx.json")}
    exported = read(run_inference(spec(**values)).path)[1]
    np.testing.assert_allclose(exported, embeddings, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.integration
def test_several_workers_write_what_one_does(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    values = {"inference__checkpoint": str(checkpoint)}
    one = read(run_inference(spec(**values)).path)
    two = read(
        run_inference(spec(**values, inference__gpu_ids=[0, 1], inference__results_dir=str(tmp_path / "o"))).path
    )
    assert two[0] == one[0]
    np.testing.assert_allclose(two[1], one[1], atol=1e-5 * np.abs(one[1]).max())


def test_inference_takes_its_own_folders_and_never_those_of_evaluate(checkpoint: Path, spec: Spec, data: Path) -> None:
    folders = {"query_dataset": str(data / "query"), "test_dataset": str(data / "bounding_box_test")}
    wanted = read(run_inference(spec(inference__checkpoint=str(checkpoint))).path)[0]
    foreign = {f"evaluate__{key}": str(data / "bounding_box_train") for key in folders}
    unset = {"dataset__query_dataset_dir": "gone", "dataset__test_dataset_dir": "gone"}
    mine = {f"inference__{key}": folder for key, folder in folders.items()}
    for values in (foreign, foreign | unset | mine):
        assert read(run_inference(spec(inference__checkpoint=str(checkpoint), **values)).path)[0] == wanted


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"inference__checkpoint": None}, "inference.checkpoint is not set"),
    ({"inference__checkpoint": "{empty}"}, "it is a folder: give a file in it"),
    ({"inference__output_file": "a/e.csv"}, "output_file = 'a/e.csv': .*end in .json, .npz or .parquet"),
    ({"inference__output_file": "{file}/e.json"}, "cannot make the folder"),
    ({"model__input_width": 32}, "was trained with another spec"),
    ({"inference__query_dataset": "gone"}, "there is no folder gone"),
    ({"inference__test_dataset": "{empty}"}, "no usable image in .*empty"),
    ({"dataset__query_dataset_dir": None, "dataset__test_dataset_dir": None}, "no images: set inference.query_dataset"),
    ({"dataset__query_dataset_dir": None, "inference__output_file": "{empty}/e.npz"}, "needs queries and gallery"),
    ({"inference__test_dataset": "{odd}", "dataset__strict": True}, "dataset.strict: .*odd has files .*somebody.jpg"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_what_cannot_be_embedded_is_refused_before_the_work(
    checkpoint: Path, spec: Spec, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    for name in ("empty", "odd"):
        (tmp_path / name).mkdir()
    (tmp_path / "odd" / "somebody.jpg").write_text("no image")
    (tmp_path / "file").write_text("")

    def placed(value: Any) -> Any:
        for name in ("empty", "odd", "file"):
            value = value.replace(f"{{{name}}}", str(tmp_path / name)) if isinstance(value, str) else value
        return value

    values = {"inference__checkpoint": str(checkpoint)} | {key: placed(value) for key, value in values.items()}
    with pytest.raises(InputError, match=message) as caught:
        run_inference(spec(**values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists() and not list((tmp_path / "empty").iterdir())


def test_an_unreadable_image_leaves_no_file(checkpoint: Path, spec: Spec, gallery: Path, tmp_path: Path) -> None:
    (gallery / "somebody.jpg").write_text("no image")
    with pytest.raises(InputError, match="cannot read the image .*somebody.jpg"):
        run_inference(spec(inference__checkpoint=str(checkpoint), inference__test_dataset=str(gallery)))
    folder = tmp_path / "results/inference"
    assert sorted(path.name for path in folder.iterdir()) == ["experiment.yaml", "status.json"]
    lines = [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "FAILURE"] and "somebody.jpg" in lines[1]["message"]


def test_an_embedding_that_is_not_finite_is_named(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    content = load_checkpoint(checkpoint)
    content.model["neck.running_mean"][3] = float("nan")
    save_checkpoint(checkpoint, content)
    with pytest.raises(InputError, match=r"the embedding of .*query/.*jpg is not finite; check the model"):
        run_inference(spec(inference__checkpoint=str(checkpoint)))
    assert not (tmp_path / "results/inference/embeddings.json").exists()


@pytest.mark.parametrize("ending", [".json", ".npz", ".parquet"])
def test_equal_images_give_a_warning(
    checkpoint: Path, spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    for folder, camera in (("query", 1), ("gallery", 2)):
        (tmp_path / folder).mkdir()
        for identity in range(1, 7):
            Image.new("RGB", (16, 32), (90, 80, 70)).save(tmp_path / folder / f"{identity:04d}_c{camera}s1_1.png")
    file = tmp_path / f"f{ending}"
    values = {"query_dataset": str(tmp_path / "query"), "test_dataset": str(tmp_path / "gallery")}
    values |= {"checkpoint": str(checkpoint), "output_file": str(file)}
    run_inference(spec(**{f"inference__{name}": value for name, value in values.items()}))
    sentence = "the embeddings have collapsed: 1 of 12 rows of the first images is distinct, and 100 % of each row is"
    assert f"warning: {sentence}" in capsys.readouterr().err
    log = (tmp_path / "results/inference/status.json").read_text().splitlines()
    assert json.loads(log[1])["warnings"][0].startswith(sentence)
    with pytest.raises(InputError, match="nothing can be ranked: .* all 6 gallery rows are equal"):
        run_score(file, None, device="cpu")
