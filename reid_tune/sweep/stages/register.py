"""Register: add the winner as a version of a model, with its files, results and a model card."""

from hashlib import blake2b
from typing import Any

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.data.fingerprint import fingerprint, image_fingerprints
from reid_tune.data.splits import Split
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.execution.fixed_runs import features_file
from reid_tune.files import write_atomic
from reid_tune.journal.events import ModelRegistered
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, repeat_number
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.export import onnx_path
from reid_tune.sweep.stages.model_card import model_version_tags, render_model_card
from reid_tune.sweep.stages.refit import find_finalists
from reid_tune.tracking.champion_comparison import CONFIRM_FILE, HoldoutResult, write_repeats
from reid_tune.tracking.store import with_credentials
from reid_tune.training.data_split import load_split
from reid_tune.training.seen_images import find_seen_validation

__all__ = ["register"]


def register(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Register ONNX file, checkpoint, spec and results of `confirm`. The promotion check decides about the alias.

    Returns:
        Version, alias and reason of the promotion check, as plain data.

    Raises:
        InfrastructureError: the tracking server is unreachable.
    """
    from reid_tune.tracking.mlflow_names import milliseconds
    from reid_tune.tracking.registry.register import register_version

    winner = find_finalists(journal)["winner"]
    model = onnx_path(sweep, "winner")
    spec, repeats = model.with_suffix(".yaml"), model.with_name(CONFIRM_FILE)
    write_atomic(spec, with_parameters(sweep.experiment, winner.parameters, "winner").to_yaml())
    write_repeats(repeats, _repeats(sweep, journal, winner))
    header = journal.state.header
    registered = register_version(
        with_credentials(header.tracking_uri),
        sweep.file.registry.model,
        files={
            "model.onnx": model,
            "checkpoint.pth": model.with_suffix(".pth"),
            "spec.yaml": spec,
            CONFIRM_FILE: repeats,
        },
        sweep=sweep.file.name,
        uid=header.uid,
        description=render_model_card(journal.state, sweep.folder),
        tags=model_version_tags(journal.state),
        set_alias=sweep.file.registry.alias,
        start=milliseconds(header),
    )
    verdict = registered.verdict
    journal.emit(ModelRegistered(model=sweep.file.registry.model, version=registered.version, alias=registered.alias))
    return {
        "model": sweep.file.registry.model,
        "version": registered.version,
        "alias": registered.alias,
        "against": verdict.incumbent,
        "difference": verdict.difference.as_dict() if verdict.difference else None,
        "reason": verdict.reason,
    }


def _repeats(sweep: SweepConfig, journal: Journal, winner: RunState) -> list[HoldoutResult]:
    """Return the winner's results on the validation splits of the stage `confirm`, query by query.

    Splits of which its pretrained weights have seen an identity are left out: they prove nothing.
    """
    data = fingerprint(*sweep.experiment.dataset.train_folders)
    repeats = []
    runs = {row["number"]: row["runs"] for row in journal.state.stages["confirm"]["trials"]}
    for name in runs[winner.number]:
        run = journal.state.runs[name]
        experiment = with_parameters(sweep.experiment, run.parameters, run.name)
        plain = score(read_features(features_file(journal.folder, run.name)))
        validation = load_split(experiment)
        if find_seen_validation(experiment, validation):
            continue
        # Images of two training folders may have the same file name, but never the same identity.
        names = np.array([f"{record.identity}/{record.path.name}" for record in validation.query])
        split = f"{data}/{_split_key(experiment, validation, repeat_number(name))}"
        repeats.append(HoldoutResult(split, names[plain.matched], plain.query_ids, plain.average_precision))
    return repeats


def _split_key(experiment: Experiment, split: Split, repeat: int) -> str:
    """Return the seed and the fraction of a validation split; the images of one that the spec gives, and the repeat."""
    dataset = experiment.dataset
    if dataset.validation == "holdout":
        return f"{dataset.validation_seed}/{dataset.validation_fraction}"
    digest = blake2b(digest_size=8)
    for records in (split.query, split.gallery):
        digest.update(image_fingerprints(records).tobytes())
    return f"{digest.hexdigest()}/{repeat}"
