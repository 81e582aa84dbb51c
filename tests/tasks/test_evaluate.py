import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from reid_tune.checkpoints.filenames import BEST, LATEST
from reid_tune.config.experiment import Experiment
from reid_tune.data import images
from reid_tune.data.fingerprint import fingerprint
from reid_tune.data.image_spec import ImageSpec
from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, score
from reid_tune.evaluation.thresholds import PairDistances
from reid_tune.journal.test_set_usage import count_test_evaluations
from reid_tune.tasks import evaluate
from reid_tune.tasks.common import model_scores
from reid_tune.tasks.common.calibration import Calibration
from reid_tune.tasks.common.evaluation_sets import EvaluationSet
from reid_tune.tasks.common.model_scores import ModelEvaluation, evaluation_features
from reid_tune.tasks.evaluate import Evaluation, run_evaluate
from reid_tune.tasks.export import run_export

from .conftest import write_checkpoint

Spec = Callable[..., Experiment]


def own(found: Evaluation) -> ModelEvaluation:
    """The scores of the one model on the spec's own test set."""
    (tests,) = found.scores.values()
    return tests[""]


def status(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def copies(folder: Path, target: Path, count: int, rename: Callable[[str], str] = str) -> Path:
    """A folder with the first images of another."""
    target.mkdir(parents=True)
    for path in sorted(folder.iterdir())[:count]:
        shutil.copy(path, target / rename(path.name))
    return target


def test_a_checkpoint_and_its_onnx_file_score_alike(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint))).as_dict()
    assert 0.05 < found["plain"]["mAP"] < 1 and found["re_ranked"]["mAP"] != found["plain"]["mAP"]
    file, _ = run_export(None, str(checkpoint), {})
    values = {"evaluate__checkpoint": str(file), "evaluate__results_dir": str(tmp_path / "other")}
    exported = run_evaluate(spec(**values)).as_dict()
    for kind in ("plain", "re_ranked"):
        for name in ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery"):
            assert exported[kind][name] == pytest.approx(found[kind][name], abs=1e-3)
    assert (tmp_path / "other" / "metrics.json").is_file()


def test_the_files_hold_metrics_intervals_protocol_spec_and_status(
    checkpoint: Path, spec: Spec, tmp_path: Path
) -> None:
    experiment = spec(evaluate__checkpoint=str(checkpoint), encryption_key="very secret")
    found, folder = run_evaluate(experiment), tmp_path / "results/evaluate"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == found.as_dict() and list(metrics) == ["plain", "re_ranked", "threshold"]
    assert metrics.pop("threshold") is None, "the demo's few pairs cannot show one in a thousand"
    flat = ["mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery"]
    for kind in metrics.values():
        assert (
            list(kind) == [*flat, "intervals", "protocol", "embeddings", "warnings"]
            and list(kind["intervals"]) == flat[:5]
        )
        assert all(low <= kind[name] <= high for name, (low, high) in kind["intervals"].items())
    assert "k1 = 20" in metrics["re_ranked"]["protocol"] and "k1" not in metrics["plain"]["protocol"]
    assert found.rows() == {"plain": metrics["plain"], "re-ranked": metrics["re_ranked"]}
    text = (folder / "experiment.yaml").read_text()
    assert "secret" not in text
    assert Experiment.model_validate(yaml.safe_load(text)).evaluate == experiment.evaluate
    lines = status(folder)
    assert [line["status"] for line in lines] == ["STARTED", "RUNNING", "SUCCESS"]
    kpi = lines[1]["kpi"]
    assert kpi["mAP"] == metrics["re_ranked"]["mAP"] and isinstance(kpi["mAP"], float)
    assert {name: kpi[f"cmc_rank_{name}"] for name in (1, 5, 10)} == {
        k: metrics["re_ranked"][f"Rank-{k}"] for k in (1, 5, 10)
    }


def test_every_evaluation_counts(
    checkpoint: Path, spec: Spec, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in ("1 time", "2 times"):
        run_evaluate(spec(evaluate__checkpoint=str(checkpoint)))
        assert f"test folders: this test set has been evaluated {count} by" in capsys.readouterr().err
    monkeypatch.setattr(evaluate, "calibrate", Mock(side_effect=InputError("it fails after the scores.")))
    with pytest.raises(InputError, match="it fails after"):
        run_evaluate(spec(evaluate__checkpoint=str(checkpoint)))
    assert count_test_evaluations(fingerprint(data / "query", data / "bounding_box_test")) == 3


def test_without_re_ranking_there_is_one_score_and_no_picture(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    values = {"evaluate__checkpoint": str(checkpoint), "re_ranking__re_ranking": False}
    found = run_evaluate(spec(**values))
    assert own(found).re_ranked is None and list(found.rows()) == ["plain"]
    files = sorted(path.name for path in (tmp_path / "results/evaluate").iterdir())
    assert files == ["experiment.yaml", "metrics.json", "status.json"]


def test_the_classes_of_the_training_are_of_no_interest(checkpoint: Path, spec: Spec) -> None:
    values = {"evaluate__checkpoint": str(checkpoint)}
    other = run_evaluate(spec(**values, dataset__num_classes=857))
    assert other.as_dict() == run_evaluate(spec(**values)).as_dict()


def test_evaluate_takes_its_own_folders_and_never_those_of_inference(checkpoint: Path, spec: Spec, data: Path) -> None:
    folders = {"query_dataset": str(data / "query"), "test_dataset": str(data / "bounding_box_test")}
    wanted = run_evaluate(spec(evaluate__checkpoint=str(checkpoint))).as_dict()
    foreign = {f"inference__{key}": str(data / "bounding_box_train") for key in folders}
    assert run_evaluate(spec(evaluate__checkpoint=str(checkpoint), **foreign)).as_dict() == wanted
    values = {"dataset__query_dataset_dir": "gone", "dataset__test_dataset_dir": "gone"}
    mine = {f"evaluate__{key}": folder for key, folder in folders.items()}
    assert run_evaluate(spec(evaluate__checkpoint=str(checkpoint), **values, **mine, **foreign)).as_dict() == wanted


@pytest.mark.parametrize("values", [{"dataset__val_batch_size": 1000}, {"dataset__val_batch_size": 7}])
def test_any_batch_size_gives_the_same_score(checkpoint: Path, spec: Spec, values: dict[str, Any]) -> None:
    wanted = run_evaluate(spec(evaluate__checkpoint=str(checkpoint))).as_dict()["plain"]["mAP"]
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), **values)).as_dict()["plain"]["mAP"]
    assert found == pytest.approx(wanted, abs=1e-4)


def test_one_query_and_a_gallery_smaller_than_the_ranks(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path
) -> None:
    (query, *_), identity = sorted((data / "query").iterdir()), None
    identity, camera = query.name[:4], query.name[5:7]
    matches = [path for path in sorted((data / "bounding_box_test").iterdir()) if path.name.startswith(identity)]
    match = next(path for path in matches if path.name[5:7] != camera)
    other = next(path for path in sorted((data / "bounding_box_test").iterdir()) if path.name[:4] > identity)
    for path, folder in ((query, "one"), (match, "two"), (other, "two")):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / folder)
    found = run_evaluate(
        spec(
            evaluate__checkpoint=str(checkpoint),
            evaluate__query_dataset=str(tmp_path / "one"),
            evaluate__test_dataset=str(tmp_path / "two"),
            evaluate__output_sampled_matches_plot=str(tmp_path / "m.png"),
            evaluate__output_cmc_curve_plot=str(tmp_path / "c.png"),
            re_ranking__num_query=1,
        )
    ).as_dict()
    assert (found["plain"]["Rank-5"], found["plain"]["queries"], found["plain"]["gallery"]) == (1.0, 1, 2)
    assert (tmp_path / "m.png").is_file() and (tmp_path / "c.png").is_file()


@pytest.mark.parametrize("reranking", [True, False])
def test_pictures_are_drawn_in_any_folder(checkpoint: Path, spec: Spec, tmp_path: Path, reranking: bool) -> None:
    import matplotlib

    cmc, matches = tmp_path / "new" / "cmc.svg", tmp_path / "other" / "matches.svg"
    values = {
        "evaluate__checkpoint": str(checkpoint),
        "evaluate__output_cmc_curve_plot": str(cmc),
        "evaluate__output_sampled_matches_plot": str(matches),
        "re_ranking__re_ranking": reranking,
        "re_ranking__max_rank": 3,
        "re_ranking__num_query": 2,
    }
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "0"}):
        run_evaluate(spec(**values))
        first = matches.read_text()
        run_evaluate(spec(**values))
        again = matches.read_text()
        run_evaluate(spec(**values, train__seed=5))
    captions = [
        [line for line in text.splitlines() if ", cam " in line] for text in (first, again, matches.read_text())
    ]
    assert captions[0] == captions[1] != captions[2] and len(captions[0]) == 2 * (1 + 3)
    assert ">Sampled matches: random queries<" in first
    assert (">k-reciprocal re-ranking with k1 = 20" in first) is reranking
    assert (">plain distances" in first) is not reranking
    assert ">Rank 3<" in first and ">Rank 4<" not in first
    curve = cmc.read_text()
    assert ("re-ranked (" in curve) is reranking and ">3<" in curve and ">4<" not in curve


@pytest.mark.parametrize("reranking", [True, False])
def test_the_hardest_queries_of_the_order_that_is_shown_come_first(
    checkpoint: Path, spec: Spec, tmp_path: Path, data: Path, reranking: bool
) -> None:
    import matplotlib

    values = {
        "evaluate__checkpoint": str(checkpoint),
        "evaluate__output_sampled_matches_plot": str(tmp_path / "m.svg"),
        "evaluate__sampled_matches": "hardest",
        "re_ranking__re_ranking": reranking,
        "re_ranking__max_rank": 2,
        "re_ranking__num_query": 4,
    }
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        found = own(run_evaluate(spec(**values))).headline
    text = (tmp_path / "m.svg").read_text()
    assert ">Sampled matches: queries of lowest average precision<" in text
    names = sorted(path.name for path in (data / "query").iterdir())
    order = sorted(range(found.queries), key=lambda m: (found.average_precision[m], m))[:4]
    assert found.average_precision[order[3]] < found.average_precision.max()
    wanted = [names[found.matched[m]] for m in order]
    shown = re.findall(r">id (\d+), cam (\d+)<|>distractor, cam", text)[::3]
    assert shown == [(str(int(name[:4])), name[6]) for name in wanted]
    captions = re.findall(r">AP (\d+) %, first match at (\d+)<", text)
    assert captions == [(f"{100 * found.average_precision[m]:.0f}", str(found.first_hit[m] + 1)) for m in order]


def test_matches_in_the_picture_are_those_of_the_metric(
    checkpoint: Path, spec: Spec, tmp_path: Path, data: Path
) -> None:
    import matplotlib

    values = {
        "evaluate__checkpoint": str(checkpoint),
        "evaluate__output_sampled_matches_plot": str(tmp_path / "m.svg"),
        "re_ranking__num_query": 500,
        "re_ranking__max_rank": 1,
    }
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        found = own(run_evaluate(spec(**values)))
    assert found.re_ranked is not None
    rows = (tmp_path / "m.svg").read_text()
    # Of every row, one solid frame is right: queries are blue, and the legend has one line of each kind.
    right = rows.count("stroke: #009e73") - 1
    assert right == round(found.re_ranked.as_dict()["Rank-1"] * found.re_ranked.queries)
    assert rows.count("stroke: #0072b2") - 1 == found.re_ranked.queries
    assert rows.count("stroke: #d55e00") - 1 == found.re_ranked.queries - right


def test_every_checkpoint_of_a_folder_has_a_row(
    checkpoint: Path, spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    names = ["model_epoch_999.pth", "model_epoch_1000.pth"]
    shutil.copy(checkpoint, folder / names[0])
    write_checkpoint(folder / names[1], spec(), seed=1)
    for name in (LATEST, BEST, "other.pth"):
        (folder / name).write_bytes(b"never read")
    found = run_evaluate(spec(evaluate__checkpoint=str(folder)))
    content = found.as_dict()
    assert json.loads((tmp_path / "results/evaluate/metrics.json").read_text()) == content
    assert list(content) == ["checkpoints", "selected_on"] and content["selected_on"] == "test"
    assert list(content["checkpoints"]) == names
    assert "selected on test" in capsys.readouterr().err
    rows = found.rows()
    assert list(rows) == [f"{name}, {kind}" for kind in ("plain", "re-ranked") for name in names]
    for name in names:
        single = run_evaluate(spec(evaluate__checkpoint=str(folder / name))).as_dict()
        assert content["checkpoints"][name] == single
        assert rows[f"{name}, re-ranked"] == single["re_ranked"]
    assert rows[f"{names[0]}, plain"]["mAP"] != rows[f"{names[1]}, plain"]["mAP"]


def test_the_images_are_decoded_once_for_all_checkpoints(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
    opened = []
    before = images.load_image

    def count(path: Path, image_spec: ImageSpec) -> Any:
        opened.append(path.name)
        return before(path, image_spec)

    write_checkpoint(checkpoint.parent / "second.pth", spec(), seed=1)
    monkeypatch.setattr(images, "load_image", count)
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint.parent))).as_dict()
    assert len(found["checkpoints"]) == 2
    names = [path.name for folder in ("query", "bounding_box_test") for path in (data / folder).iterdir()]
    assert sorted(opened) == sorted(names)
    run_evaluate(spec(evaluate__checkpoint=str(checkpoint)))
    assert len(opened) == len(names), "later evaluations read the cache"


def test_a_folder_of_files_with_unlike_preprocessing(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    run_export(None, str(checkpoint), {"export.onnx_file": str(tmp_path / "both" / "b.onnx")})
    small = spec(model__input_height=48)
    taller = write_checkpoint(tmp_path / "taller" / "model.pth", small)
    run_export(None, str(taller), {"export.onnx_file": str(tmp_path / "both" / "a.onnx")})
    found = run_evaluate(spec(evaluate__checkpoint=str(tmp_path / "both"))).as_dict()["checkpoints"]
    for name in ("a.onnx", "b.onnx"):
        single = run_evaluate(spec(evaluate__checkpoint=str(tmp_path / "both" / name))).as_dict()
        assert found[name] == single
    assert found["a.onnx"]["plain"]["mAP"] != found["b.onnx"]["plain"]["mAP"]


def test_further_test_sets_have_rows_below(checkpoint: Path, spec: Spec, data: Path, tmp_path: Path) -> None:
    gallery = copies(data / "bounding_box_test", tmp_path / "gallery", 30)
    extra = [
        {"name": "smaller", "query_dataset_dir": str(data / "query"), "test_dataset_dir": str(gallery)},
        {
            "name": "same",
            "query_dataset_dir": str(data / "query"),
            "test_dataset_dir": str(data / "bounding_box_test"),
        },
    ]
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), dataset__extra_tests=extra))
    content = found.as_dict()
    assert json.loads((tmp_path / "results/evaluate/metrics.json").read_text()) == content
    assert list(content) == ["plain", "re_ranked", "threshold", "extra_tests"] and list(content["extra_tests"]) == [
        "smaller",
        "same",
    ]
    same, smaller = content["extra_tests"]["same"], content["extra_tests"]["smaller"]
    assert same == {name: content[name] for name in ("plain", "re_ranked", "threshold")}
    assert smaller["plain"]["gallery"] < same["plain"]["gallery"]
    sets = ("", "smaller, ", "same, ")
    assert list(found.rows()) == [f"{name}{kind}" for name in sets for kind in ("plain", "re-ranked")]
    assert found.rows()["smaller, plain"] == smaller["plain"]


def test_an_extra_test_of_one_identity_is_refused_before_the_work(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for path in (data / "query").glob("0*"):
        identity = path.name[:4]
        for image in [] if identity == "0000" or any(gallery.iterdir()) else [*data.glob(f"*/{identity}*")]:
            (gallery / image.name).symlink_to(image)
    extra = {"name": "night", "query_dataset_dir": str(data / "query"), "test_dataset_dir": str(gallery)}
    monkeypatch.setattr(EvaluationSet, "decode", lambda *_: pytest.fail("images are decoded"))
    with pytest.raises(InputError, match=r"query and .*gallery: every gallery image without junk has identity \d+"):
        run_evaluate(spec(evaluate__checkpoint=str(checkpoint), dataset__extra_tests=[extra]))


def test_names_that_do_not_parse_are_told_and_left_out(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = copies(data / "bounding_box_test", tmp_path / "gallery", 1000)
    shutil.copy(next(gallery.iterdir()), gallery / "somebody.jpg")
    (gallery / "Thumbs.db").write_text("")
    query = copies(data / "query", tmp_path / "query", 1000)
    (query / "Thumbs.db").write_text("")
    (query / "more").mkdir()
    values = {"evaluate__checkpoint": str(checkpoint)}
    wanted = run_evaluate(spec(**values)).as_dict()
    capsys.readouterr()
    own_folders = {"evaluate__test_dataset": str(gallery), "evaluate__query_dataset": str(query)}
    assert run_evaluate(spec(**values, **own_folders)).as_dict() == wanted
    err = capsys.readouterr().err
    assert "of gallery (1 whose name does not parse, 'somebody.jpg'; 1 hidden or system file, 'Thumbs.db'; " in err
    accounts = [line for line in status(tmp_path / "results/evaluate") if line["status"] == "STARTED"][-1]["data"]
    score = wanted["plain"]
    used = {"query": score["queries"], "gallery": score["gallery"]}
    assert {name: account["used"] for name, account in accounts.items()} == used
    assert accounts["query"] == {"files": used["query"] + 1, "used": used["query"], "left_out": {"system": 1}}
    junk = sum(path.name.startswith("-1") for path in gallery.iterdir())
    assert accounts["gallery"]["left_out"] == {"name": 1, "system": 1, "junk": junk}
    assert accounts["gallery"]["files"] == used["gallery"] + 2 + junk
    with pytest.raises(InputError, match="somebody.jpg"):
        run_evaluate(spec(**values, evaluate__test_dataset=str(gallery), dataset__strict=True))


def test_the_threshold_is_that_of_the_plain_distances(checkpoint: Path, spec: Spec, data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "distances.svg"
    values = {"evaluate__output_distances_plot": str(picture), "evaluate__fmr": 0.05}
    experiment = spec(evaluate__checkpoint=str(checkpoint), **values)
    found = run_evaluate(experiment).as_dict()["threshold"]
    folders = str(data / "query"), str(data / "bounding_box_test")
    features, _ = evaluation_features(experiment, checkpoint, *folders, torch.device("cpu"))
    wanted = PairDistances.of(features).threshold(0.05)
    assert {name: found[name] for name in wanted.as_dict()} == wanted.as_dict() and wanted.fmr <= 0.05
    assert found["dimension"] == features.query_features.shape[1] and found["open_set"]["rows"] == []
    people = len(set(features.query_ids.tolist()) | set(features.gallery_ids.tolist()) - {0})
    sizes = {"queries": len(features.query_ids), "gallery": len(features.gallery_ids), "identities": people}
    data_of = {"checkpoint": "model.pth", "query_dataset": folders[0], "test_dataset": folders[1]}
    assert found["data"] == data_of | sizes
    assert picture.is_file()


def test_too_few_pairs_for_the_rate_are_a_note(
    checkpoint: Path, spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "distances.png"
    values = {"evaluate__checkpoint": str(checkpoint), "evaluate__output_distances_plot": str(picture)}
    assert run_evaluate(spec(**values)).as_dict()["threshold"] is None
    (note,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("note: model.pth on"))
    assert "evaluate.fmr" in note and "a false-match rate of 0.001 cannot be shown" in note
    assert picture.is_file(), "the distances have a picture without a threshold too"


def test_queries_without_a_match_are_told_beforehand(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = copies(data / "bounding_box_test", tmp_path / "gallery", 1000)
    missing = sorted((data / "query").iterdir())[0].name[:4]
    for path in gallery.glob(f"{missing}_*"):
        path.unlink()
    found = own(run_evaluate(spec(evaluate__checkpoint=str(checkpoint), evaluate__test_dataset=str(gallery))))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "no match" in line)
    assert found.plain.unmatched > 0 and line == (
        f"{data / 'query'}: {found.plain.unmatched} of {found.plain.unmatched + found.plain.queries} queries have no "
        f"match in the gallery and count in no metric; identities absent from it: {int(missing)}"
    )


@pytest.mark.integration
def test_several_workers_score_what_one_does(checkpoint: Path, spec: Spec, capsys: pytest.CaptureFixture[str]) -> None:
    one = run_evaluate(spec(evaluate__checkpoint=str(checkpoint))).as_dict()
    capsys.readouterr()
    two = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), evaluate__num_gpus=2)).as_dict()
    assert "2 processes on the CPU" in capsys.readouterr().err
    for kind in ("plain", "re_ranked"):
        for name in ("mAP", "mINP", "Rank-1", "queries", "gallery"):
            assert two[kind][name] == pytest.approx(one[kind][name], abs=1e-4)


def test_test_features_are_those_of_evaluate(checkpoint: Path, spec: Spec, data: Path) -> None:
    experiment = spec(evaluate__checkpoint=str(checkpoint))
    features, _ = evaluation_features(
        experiment, checkpoint, str(data / "query"), str(data / "bounding_box_test"), torch.device("cpu")
    )
    found = own(run_evaluate(experiment))
    assert found.plain.as_dict() == score(features).as_dict()
    assert found.re_ranked is not None
    assert found.re_ranked.as_dict() == score(features, ReRanking(20, 6, 0.3)).as_dict()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"evaluate__checkpoint": None}, "evaluate.checkpoint is not set"),
    ({"evaluate__checkpoint": "gone.pth"}, "there is no checkpoint gone.pth"),
    ({"evaluate__checkpoint": "{empty}"}, "the folder .*empty has no checkpoint"),
    ({"model__input_width": 32}, "was trained with another spec"),
    ({"model__feat_dim": 32}, "does not fit the network"),
    ({"dataset__query_dataset_dir": None}, "neither evaluate.query_dataset nor dataset.query_dataset_dir is set"),
    ({"dataset__test_dataset_dir": "gone"}, "there is no folder gone"),
    ({"evaluate__test_dataset": "{empty}"}, "no usable image in .*empty"),
    ({"evaluate__output_cmc_curve_plot": "a/cmc"}, "output_cmc_curve_plot = 'a/cmc': .*end in .png, .pdf or .svg"),
    ({"evaluate__output_distances_plot": "d.gif"}, "output_distances_plot = 'd.gif': .*must end in"),
    (
        {"evaluate__checkpoint": "{run}", "evaluate__output_distances_plot": "{empty}/d.png"},
        "output_distances_plot is the picture of one model",
    ),
    ({"evaluate__output_sampled_matches_plot": "m.jpg"}, "output_sampled_matches_plot = 'm.jpg': .*must end in"),
    ({"evaluate__output_sampled_matches_plot": "{file}/m.png"}, "cannot make the folder"),
    ({"evaluate__output_cmc_curve_plot": "{folder.png}"}, "is a folder: name a file"),
    (
        {"evaluate__output_sampled_matches_plot": "{empty}/m.png", "re_ranking__max_rank": 2000},
        "num_query = 10 and re_ranking.max_rank = 2000 make 20010 images",
    ),
    (
        {"evaluate__checkpoint": "{run}", "evaluate__output_cmc_curve_plot": "{empty}/c.png"},
        "output_cmc_curve_plot is the picture of one model, but .* is a folder",
    ),
    (
        {"dataset__extra_tests": [{"name": "a", "query_dataset_dir": "gone", "test_dataset_dir": "gone"}] * 2},
        "the name 'a' twice",
    ),
    (
        {"dataset__extra_tests": [{"name": "a", "query_dataset_dir": "gone", "test_dataset_dir": "gone"}]},
        "there is no folder gone",
    ),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_what_cannot_be_evaluated_is_refused_before_the_work(
    checkpoint: Path,
    spec: Spec,
    tmp_path: Path,
    values: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("empty", "folder.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    places = {"{run}": checkpoint.parent} | {f"{{{n}}}": tmp_path / n for n in ("empty", "file", "folder.png")}

    def placed(value: Any) -> Any:
        for name, place in places.items():
            value = value.replace(name, str(place)) if isinstance(value, str) else value
        return value

    values = {"evaluate__checkpoint": str(checkpoint)} | {key: placed(value) for key, value in values.items()}
    with pytest.raises(InputError, match=message) as caught:
        run_evaluate(spec(**values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_an_unreadable_image_fails_the_evaluation_in_one_sentence(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path
) -> None:
    gallery = copies(data / "bounding_box_test", tmp_path / "gallery", 1000)
    (gallery / "0001_c1_broken.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"cannot read the image .*0001_c1_broken\.jpg"):
        run_evaluate(spec(evaluate__checkpoint=str(checkpoint), evaluate__test_dataset=str(gallery)))
    folder = tmp_path / "results/evaluate"
    assert sorted(path.name for path in folder.iterdir()) == ["experiment.yaml", "status.json"]
    assert [line["status"] for line in status(folder)] == ["STARTED", "FAILURE"]
    assert "0001_c1_broken.jpg" in status(folder)[-1]["message"]


def test_a_damaged_checkpoint_of_a_folder_is_found_before_the_work(
    checkpoint: Path, spec: Spec, tmp_path: Path
) -> None:
    (checkpoint.parent / "zz.pth").write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"zz\.pth"):
        run_evaluate(spec(evaluate__checkpoint=str(checkpoint.parent)))
    assert not (tmp_path / "results").exists()


def test_a_gpu_that_the_machine_lacks_is_named(checkpoint: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    values = {"evaluate__checkpoint": str(checkpoint), "evaluate__num_gpus": 2, "train__gpu_ids": [5]}
    with pytest.raises(InputError, match="evaluate.gpu_ids asks for GPU 3, but this machine has 2"):
        run_evaluate(spec(**values, evaluate__gpu_ids=[0, 3]))


@pytest.mark.parametrize("deterministic", [False, True])
def test_scores_and_calibration_are_computed_on_the_model_s_device(
    checkpoint: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    first, calls = torch.device("cpu", 0), []  # unlike torch.device("cpu"), where the functions' defaults compute
    monkeypatch.setattr(evaluate, "task_devices", lambda *_: [first])

    def scores(features: FeatureSet, settings: list[Any], device: torch.device, watch: Any) -> Iterator[Score]:
        for result in all_scores(features, settings, device, watch):
            calls.append(("scores", device, torch.are_deterministic_algorithms_enabled()))
            yield result

    def calibrate(*arguments: Any, device: torch.device) -> Calibration:
        calls.append(("calibrate", device, torch.are_deterministic_algorithms_enabled()))
        return calibration(*arguments, device=device)

    all_scores, calibration = model_scores.scores, evaluate.calibrate
    monkeypatch.setattr(model_scores, "scores", scores)
    monkeypatch.setattr(evaluate, "calibrate", calibrate)
    run_evaluate(spec(evaluate__checkpoint=str(checkpoint), train__deterministic=deterministic))
    assert calls == [("scores", first, deterministic)] * 2 + [("calibrate", first, False)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_latest_results_replace_the_older_ones_whole(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    picture = tmp_path / "c.png"
    values = {"evaluate__checkpoint": str(checkpoint), "evaluate__output_cmc_curve_plot": str(picture)}
    run_evaluate(spec(**values))
    run_evaluate(spec(**values, re_ranking__re_ranking=False))
    metrics = json.loads((tmp_path / "results/evaluate/metrics.json").read_text())
    assert metrics["re_ranked"] is None
    with Image.open(picture) as image:
        assert np.asarray(image).std() > 0


@pytest.mark.parametrize(
    ("constant", "sentence"),
    [
        (0, None),
        (2, "gallery rows are equal to another one, and the order of the gallery decides"),
        (27, "the embeddings have collapsed: "),
    ],
)
def test_constant_images_are_counted(
    checkpoint: Path,
    spec: Spec,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    constant: int,
    sentence: str | None,
) -> None:
    gallery = tmp_path / "gallery"
    shutil.copytree(data / "bounding_box_test", gallery)
    images = [path for path in sorted(gallery.iterdir()) if not path.name.startswith(("-1", "0000"))]
    for path in images[:constant]:
        Image.new("RGB", (64, 128), (90, 90, 90)).save(path)
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), evaluate__test_dataset=str(gallery))).as_dict()
    warnings, line = found["plain"]["warnings"], status(tmp_path / "results/evaluate")[1]
    assert line.get("warnings", []) == warnings == found["re_ranked"]["warnings"]
    repeated = found["plain"]["gallery"] - found["plain"]["embeddings"]["distinct_gallery"]
    # A last batch of another size may round the embedding of the same image in another way.
    assert max(constant - 4, min(constant // 2, 1)) <= repeated <= max(constant - 1, 0)
    if sentence is None:
        assert warnings == [] and "warning" not in capsys.readouterr().err
    else:
        assert len(warnings) == 1 and sentence in warnings[0] and f": {warnings[0]}\n" in capsys.readouterr().err


def test_equal_images_are_refused(checkpoint: Path, spec: Spec, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "bounding_box_test", tmp_path / "gallery")
    for path in (tmp_path / "gallery").iterdir():
        Image.new("RGB", (64, 128)).save(path)
    with pytest.raises(InputError, match="nothing can be ranked: the embeddings have collapsed, as all"):
        run_evaluate(spec(evaluate__checkpoint=str(checkpoint), evaluate__test_dataset=str(tmp_path / "gallery")))
    assert status(tmp_path / "results/evaluate")[-1]["status"] == "FAILURE"
