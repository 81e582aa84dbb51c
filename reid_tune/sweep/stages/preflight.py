"""Everything that can be known to go wrong before the first trial starts."""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.data.images import require_readable
from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError, ReidTuneError, error_context
from reid_tune.modeling.cost import model_cost
from reid_tune.modeling.network import build_seeded_network
from reid_tune.search.asha import rung_epochs
from reid_tune.search.validation import SAMPLE_COUNT, validate_space
from reid_tune.search.warm_start import initial_points
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.rerank import list_settings
from reid_tune.tracking.registry.names import check_alias, check_model_name
from reid_tune.training.compiler import require_compiler
from reid_tune.training.pretrained import load_pretrained
from reid_tune.training.run import require_shares
from reid_tune.training.subsets import DataSplit, evaluation_records, load_split, shared_identities

__all__ = ["PreflightResult", "run_preflight"]


@dataclass(frozen=True)
class PreflightResult:
    """What the checks found.

    Attributes:
        levels: ASHA's rungs in epochs.
        initial_points: Configurations to be tried first, each with its `parameters` and `origin`.
        pretrained: File and digest of the pretrained weights.
    """

    levels: tuple[int, ...]
    training_images: int
    training_identities: int
    held_out_identities: int
    initial_points: list[dict[str, Any]]
    pretrained: dict[str, str] | None
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For the log and for `--dry-run`."""
        found = asdict(self)
        return {"rungs": list(found.pop("levels")), **found}


def run_preflight(sweep: SweepConfig, stages: Collection[str], address: str | None = None) -> PreflightResult:
    """Check space, spec and data.

    Args:
        stages: Those to run; test folders are looked at only if `test` is one of them.
        address: Of the cluster that holds the trials; without one they run on this machine.

    Raises:
        InputError: the first thing that would make the sweep fail.
    """
    check_model_name(sweep.file.registry.model)
    with error_context("registry.alias"):
        check_alias(sweep.file.registry.alias)
    _require_own_fields(sweep.experiment)
    if address is None:  # The nodes of a cluster may have other programs: the probe looks on the node that it gets.
        require_compiler(sweep.experiment, _device_type(sweep))
    pretrained = _pretrained(sweep.experiment)
    samples = validate_space(sweep, SAMPLE_COUNT)
    _require_networks([sweep.experiment, *samples])
    with error_context("dataset.train_dataset_dir"):
        split = load_split(sweep.experiment)
    identities = len({record.identity for record in split.train})
    _require_identities(sweep, [sweep.experiment, *samples], identities)
    require_readable([*split.train, *split.query, *split.gallery])
    warnings = _warnings(sweep, split)
    if "test" in stages:
        queries = _test_queries(sweep.experiment)
        if shared := shared_identities([*split.train, *split.gallery], queries):
            warnings.append(f"{shared} identities are in training and in the queries: the test will be worth nothing.")
    list_settings(sweep)
    given, left_out = initial_points(sweep)
    return PreflightResult(
        _levels(sweep, samples),
        len(split.train),
        identities,
        split.held_out,
        [asdict(configuration) for configuration in given],
        pretrained,
        warnings + left_out,
    )


def _require_own_fields(experiment: Experiment) -> None:
    """Refuse what a sweep decides by itself, or must be able to find again."""
    train = experiment.train
    if len(train.gpus) > 1:
        raise InputError(
            f"train.num_gpus = {train.num_gpus}, train.gpu_ids = {list(train.gpu_ids)}: in a sweep, resources of the "
            "sweep file says what a run gets; remove them."
        )
    if train.seed < 0:
        raise InputError(
            "train.seed = -1: trials are compared with one seed, and can be repeated: set it to 0 or above."
        )
    if train.resume_training_checkpoint_path:
        raise InputError("train.resume_training_checkpoint_path is for a single run: remove it from a sweep's spec.")


def _device_type(sweep: SweepConfig) -> str:
    """The kind of device that a trial on this machine gets."""
    return "cuda" if sweep.file.resources.gpus_per_worker and torch.cuda.is_available() else "cpu"


def _require_networks(experiments: list[Experiment]) -> None:
    """Build one network of each backbone, on no device, so that a misspelt one is refused now."""
    for experiment in {experiment.model.backbone: experiment for experiment in experiments}.values():
        model_cost(experiment)


def _pretrained(experiment: Experiment) -> dict[str, str] | None:
    """File and digest of the pretrained weights, which are known to fit."""
    if not experiment.model.pretrained_model_path:
        return None
    loaded = load_pretrained(build_seeded_network(experiment.model, 0, 0), experiment, ())
    return {"file": str(loaded.path), "sha256": loaded.sha256} if loaded else None


def _levels(sweep: SweepConfig, samples: list[Experiment]) -> tuple[int, ...]:
    """Epochs of ASHA's rungs; none without a scheduler.

    Raises:
        InputError: the grace period is shorter than a warm-up, so trials would be judged by their warm-up.
    """
    if sweep.file.scheduler.name == "none":
        return ()
    experiments = [sweep.experiment, *samples]
    warmup = max(_warmup(experiment) for experiment in experiments)
    epochs = max(experiment.train.num_epochs for experiment in experiments)
    grace = sweep.file.scheduler.grace_period
    if grace == "auto":
        grace = warmup + math.ceil(epochs / 10)
    elif grace <= warmup:
        raise InputError(
            f"{sweep.source}: scheduler.grace_period = {grace} is not above the longest warm-up of {warmup} epochs: "
            "trials would be judged by their warm-up; raise it or write auto."
        )
    return rung_epochs(grace, sweep.file.scheduler.reduction_factor, epochs)


def _warmup(experiment: Experiment) -> int:
    optim = experiment.train.optim
    return optim.warmup_epochs if optim.warmup_method == "cosine" else optim.warmup_iters


def _require_identities(sweep: SweepConfig, experiments: list[Experiment], identities: int) -> None:
    for experiment in experiments:
        for workers in {sweep.file.resources.workers, sweep.file.resources.refit_workers}:
            require_shares(experiment, workers)
        dataset = experiment.dataset
        wanted = dataset.batch_size // dataset.num_instances
        if wanted > identities:
            raise InputError(
                f"dataset.batch_size = {dataset.batch_size} with dataset.num_instances = {dataset.num_instances} needs "
                f"{wanted} identities, but the hold-out leaves {identities} for training: lower batch_size."
            )


def _test_queries(experiment: Experiment) -> tuple[ImageRecord, ...]:
    dataset = experiment.dataset
    try:
        query, gallery = evaluation_records(dataset.query_dataset_dir, dataset.test_dataset_dir)
        require_readable([*query, *gallery])
    except ReidTuneError as error:
        raise InputError(f"the stage test needs its folders: {error} Or stop earlier with --until export.") from None
    return query


def _warnings(sweep: SweepConfig, split: DataSplit) -> list[str]:
    lines = []
    if split.held_out < 100:
        lines.append(f"{split.held_out} identities are held out for validation; below 100 the search sees a noisy mAP.")
    searched = {parameter.key for parameter in sweep.space.parameters}
    early = searched & {"train.optim.lr_steps", "train.num_epochs"}
    if early and sweep.file.scheduler.name == "asha":
        lines.append(f"{', '.join(sorted(early))} under asha: trials are compared at unlike points of their schedules.")
    lines += [
        f"{len(folder.unparsed_names)} files of {folder.path} are left out: their names do not parse."
        for folder in split.folders
        if folder.unparsed_names
    ]
    return lines
