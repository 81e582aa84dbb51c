"""The last stages: export, test and register."""

import json
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.checkpoint import load_checkpoint, strip_checkpoint
from reid_tune.checkpoints.names import newest_attempt
from reid_tune.errors import FailedRun
from reid_tune.files import write_atomic
from reid_tune.spec.load import with_parameters
from reid_tune.spec.secret import passphrase
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.journal import Journal
from reid_tune.sweep.stages.refit import finalists, refit_run
from reid_tune.tasks.evaluate import Evaluated, evaluate_features, reranking_of, test_features
from reid_tune.tasks.export import export_checkpoint
from reid_tune.tasks.models import checkpoint_experiment
from reid_tune.tasks.pictures import draw_cmc
from reid_tune.tasks.threshold import calibrate
from reid_tune.tracking.store import with_credentials

__all__ = ["export", "register", "test"]

SAME_MAP = 1e-3


def export(sweep: Sweep, journal: Journal) -> dict[str, Any]:
    """Write each finalist as ONNX and as a checkpoint without optimizer; the result is the parity by finalist."""
    result = {}
    for name in finalists(journal, sweep.file.metric):
        target = _onnx(sweep, name)
        parity = export_checkpoint(_checkpoint(sweep, journal, name), target, overwrite=True)
        strip_checkpoint(_checkpoint(sweep, journal, name), target.with_suffix(".pth"), passphrase(sweep.experiment))
        result[name] = {"file": str(target.relative_to(sweep.folder)), "parity": parity.as_dict()}
    return result


def test(sweep: Sweep, journal: Journal) -> dict[str, Any]:
    """Score the finalists' ONNX files on the test folders, plain and re-ranked as the spec says."""
    dataset = sweep.experiment.dataset
    result, thresholds = {}, {}
    for name in finalists(journal, sweep.file.metric):
        folders = dataset.query_dataset_dir, dataset.test_dataset_dir
        features = test_features(sweep.experiment, _onnx(sweep, name), *folders)
        evaluated = evaluate_features(features, reranking_of(sweep.experiment))
        data = dict(zip(("checkpoint", "query_dataset", "test_dataset"), (f"{name}.onnx", *folders), strict=True))
        thresholds[name] = calibrate(features, sweep.experiment.evaluate.fmr, data).as_dict()
        result[name] = evaluated.as_dict() | {"checkpoint": _checkpoint_metrics(sweep, journal, name, evaluated)}
        picture = sweep.folder / "export" / f"{name}-cmc.png"
        draw_cmc(evaluated.plain, evaluated.re_ranked, picture)
        journal.emit("artifact", run=refit_run(name), path=str(picture), folder="test")
    # The log, which resumes and reports read, has the scores alone.
    content = {name: scores | {"threshold": thresholds[name]} for name, scores in result.items()}
    write_atomic(sweep.folder / "export" / "test.json", json.dumps(content, indent=2) + "\n")
    return result


def _checkpoint_metrics(sweep: Sweep, journal: Journal, name: str, exported: Evaluated) -> dict[str, Any]:
    """Plain metrics of the checkpoint by PyTorch, which the ONNX file must repeat."""
    dataset, path = sweep.experiment.dataset, _checkpoint(sweep, journal, name)
    trained = checkpoint_experiment(load_checkpoint(path, passphrase(sweep.experiment)), path)
    features = test_features(trained, path, dataset.query_dataset_dir, dataset.test_dataset_dir)
    metrics = evaluate_features(features, None).plain.as_dict()
    if abs(metrics["mAP"] - exported.plain.mAP) > SAME_MAP:
        raise FailedRun(
            f"the ONNX file of {name} scores mAP {exported.plain.mAP:.4f} on the test folders, "
            f"but its checkpoint {metrics['mAP']:.4f}."
        )
    return metrics


def register(sweep: Sweep, journal: Journal) -> dict[str, Any]:
    """Register the winner: ONNX file, checkpoint and spec as one version."""
    from reid_tune.tracking.registry import register as register_version

    winner = finalists(journal, sweep.file.metric)["winner"]
    spec = sweep.folder / "export" / "winner.yaml"
    write_atomic(spec, with_parameters(sweep.experiment, winner.parameters, "winner").to_yaml())
    test = journal.state.stages.get("test", {}).get("winner", {}).get("plain", {})
    header = journal.state.header
    registered = register_version(
        with_credentials(header["tracking_uri"]),
        sweep.file.registry.model,
        files={
            "model.onnx": _onnx(sweep, "winner"),
            "checkpoint.pth": _onnx(sweep, "winner").with_suffix(".pth"),
            "spec.yaml": spec,
        },
        sweep=sweep.file.name,
        uid=header["uid"],
        description=f"Winner of the sweep {sweep.file.name}: trial {winner.number}.",
        tags={"sweep": sweep.file.name, "trial": str(winner.number)}
        | {f"test/{name}": f"{value:.4f}" for name, value in test.items() if isinstance(value, float)},
        set_alias=sweep.file.registry.alias,
    )
    journal.emit("registered", model=sweep.file.registry.model, version=registered.version, alias=registered.alias)
    return {"model": sweep.file.registry.model, "version": registered.version, "alias": registered.alias}


def _onnx(sweep: Sweep, name: str) -> Path:
    return sweep.folder / "export" / f"{name}.onnx"


def _checkpoint(sweep: Sweep, journal: Journal, name: str) -> Path:
    run = journal.state.runs.get(refit_run(name))
    if run is None or run.state != "finished":
        reason = f": {run.reason}" if run and run.reason else ""
        raise FailedRun(
            f"the refit of {name} did not finish{reason}; its log is {sweep.folder / refit_run(name) / 'log.txt'}."
        )
    path = newest_attempt(sweep.folder / refit_run(name))
    if path is None:
        raise FailedRun(f"the checkpoint of {refit_run(name)} is missing from {sweep.folder}.")
    return path
