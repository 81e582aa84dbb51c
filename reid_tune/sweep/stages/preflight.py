"""Preflight: check everything that can be checked before the first trial starts."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch

from reid_tune.config.checks import require_divisible_batch
from reid_tune.config.experiment import Experiment, flatten
from reid_tune.config.load import with_parameters
from reid_tune.data.account import accounts_as_dict, describe_accounts
from reid_tune.data.fingerprint import fingerprint
from reid_tune.data.images import require_readable
from reid_tune.data.listing import POSSIBLE_IMAGES
from reid_tune.errors import InputError, ReidTuneError, error_context
from reid_tune.search.asha import NO_RUNGS, Rungs, rung_epochs, warmup_epochs
from reid_tune.search.learned_trials import LearnedSweep, learned_sweeps
from reid_tune.search.race import first_proof_repeat
from reid_tune.search.space_check import SAMPLE_COUNT, validate_space
from reid_tune.search.warm_start import InitialPoint, initial_points
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.rerank import list_settings
from reid_tune.sweep.stages.validation_check import describe_validation, load_given_validation
from reid_tune.sweep.stages.weights_check import check_networks, load_weights_of, weights_digests
from reid_tune.tasks.common.evaluation_sets import EvaluationSet, evaluation_sets
from reid_tune.tracking.registry.names import check_alias, check_model_name
from reid_tune.training.compiler import require_compiler
from reid_tune.training.data_split import DataSplit, count_shared_identities, list_training_folders, load_split

__all__ = ["PreflightResult", "run_preflight"]


@dataclass(frozen=True)
class PreflightResult:
    """Result of the checks.

    Attributes:
        rungs: ASHA's rungs.
        rung_delay: Mean epochs by which trials have their rungs later than one with the shortest warm-up.
        training_images: Number of images for training, without the validation split.
        training_identities: Number of their identities.
        held_out_identities: Number of identities of the validation split.
        initial_points: Warm starts, each with its `parameters` and `origin`.
        learned: Earlier sweeps that the sampler learns from, see `LearnedSweep`.
        pretrained: By file of pretrained weights, of the spec and of the space, its SHA-256 digest.
        data: Account of the files of each part of the data, see `FileAccount`.
        warnings: Sentences on what may be wrong.
    """

    rungs: Rungs
    rung_delay: float
    training_images: int
    training_identities: int
    held_out_identities: int
    initial_points: list[dict[str, Any]]
    learned: list[dict[str, Any]]
    pretrained: dict[str, str]
    data: dict[str, dict[str, Any]]
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data, for the event log and for `--dry-run`."""
        return asdict(self) | {"rungs": list(self.rungs.levels), "rung_warmup": self.rungs.warmup}


def run_preflight(
    sweep: SweepConfig, stages: Collection[str], address: str | None = None, is_new_space: bool = True
) -> PreflightResult:
    """Check space, spec and data.

    Args:
        sweep: Sweep to check.
        stages: Names of the stages to run; test folders are read only if `test` is one of them.
        address: Address of the cluster that runs the trials, None for this machine.
        is_new_space: Whether networks are built and weights are loaded; the space of a sweep that continues has passed.

    Raises:
        InputError: the sweep would fail; the first reason is given.
    """
    _require_registry_names(sweep)
    _require_sweep_spec(sweep.experiment)
    if address is None:  # The nodes of a cluster may have other programs: the probe checks the node on which it runs.
        require_compiler(sweep.experiment, _device_type(sweep))
    samples, space_warnings = validate_space(sweep, SAMPLE_COUNT)
    weights_warnings = check_networks([sweep.experiment, *samples]) if is_new_space else []
    pretrained, (split, *repeats) = weights_digests(sweep), _splits(sweep, stages)
    identities = _count_identities(split)
    _require_identities(sweep, [sweep.experiment, *samples], min([identities, *map(_count_identities, repeats)]))
    require_readable([*split.train, *split.query, *split.gallery])
    warnings, accounts = space_warnings + weights_warnings + _warnings(sweep, split), dict(split.accounts)
    if "test" in stages:
        tests = _test_sets(sweep.experiment)
        accounts |= {name: account for test in tests for name, account in test.accounts.items()}
        if shared := count_shared_identities([*split.train, *split.gallery], tests[0].query.records):
            warnings.append(f"{shared} test identities are in the training set: the test score will be meaningless.")
    warnings += filter(None, [describe_accounts(accounts, POSSIBLE_IMAGES)])
    list_settings(sweep)
    points, learned, earlier_warnings = _earlier_sweeps(sweep, pretrained) if "preflight" in stages else ([], [], [])
    return PreflightResult(
        rungs := _rungs(sweep, samples),
        fmean(map(rungs.delay, map(_training_values, samples))),
        len(split.train),
        identities,
        split.held_out,
        [asdict(point) for point in points],
        [earlier.as_dict() for earlier in learned],
        pretrained,
        accounts_as_dict(accounts),
        warnings + earlier_warnings,
    )


def _earlier_sweeps(
    sweep: SweepConfig, pretrained: Mapping[str, str]
) -> tuple[list[InitialPoint], list[LearnedSweep], list[str]]:
    """Return warm starts, the sweeps to learn from, and warnings; a resume finds them in the log."""
    points, warm_start_warnings = initial_points(sweep, pretrained)
    experiments = [with_parameters(sweep.experiment, point.parameters, point.origin) for point in points]
    warm_start_warnings += load_weights_of(experiments)
    data = fingerprint(*sweep.experiment.dataset.train_folders) if sweep.file.search.learn_from else None
    learned, learn_warnings = learned_sweeps(sweep, data, pretrained)
    return points, learned, warm_start_warnings + learn_warnings


def _require_registry_names(sweep: SweepConfig) -> None:
    check_model_name(sweep.file.registry.model)
    with error_context("registry.alias"):
        check_alias(sweep.file.registry.alias)


def _require_sweep_spec(experiment: Experiment) -> None:
    """Reject values that a sweep sets itself, or that make trials not comparable."""
    train = experiment.train
    if len(train.gpus) > 1:
        raise InputError(
            f"train.num_gpus = {train.num_gpus}, train.gpu_ids = {list(train.gpu_ids)}: in a sweep, resources of the "
            "search-space file says what a run gets: remove them."
        )
    if train.seed < 0:
        raise InputError(
            "train.seed = -1 is not allowed in a sweep, whose trials are compared with one seed: use a fixed seed >= 0."
        )
    if train.resume_training_checkpoint_path:
        raise InputError(
            "train.resume_training_checkpoint_path is for a single training: remove it from a sweep's spec."
        )


def _device_type(sweep: SweepConfig) -> str:
    """Return the type of the device that a trial on this machine gets."""
    return "cuda" if sweep.file.resources.gpus_per_worker and torch.cuda.is_available() else "cpu"


def _rungs(sweep: SweepConfig, samples: list[Experiment]) -> Rungs:
    """Return ASHA's rungs, none without a scheduler. A longer warm-up than the shortest of the space delays them.

    Raises:
        InputError: the grace period is not longer than the shortest warm-up, which would then decide.
    """
    if sweep.file.scheduler.name == "none":
        return NO_RUNGS
    specs = [_training_values(experiment) for experiment in (sweep.experiment, *samples)]
    warmup, epochs = min(map(warmup_epochs, specs)), max(values["train.num_epochs"] for values in specs)
    grace = sweep.file.scheduler.grace_period
    if grace == "auto":
        grace = warmup + math.ceil(epochs / 10)
    elif grace <= warmup:
        raise InputError(
            f"{sweep.source}: scheduler.grace_period = {grace} is not above the shortest warm-up of {warmup} epochs: "
            "trials would be judged by their warm-up; raise it or use auto."
        )
    return Rungs(rung_epochs(grace, sweep.file.scheduler.reduction_factor, epochs), warmup)


def _training_values(experiment: Experiment) -> dict[str, Any]:
    """Return the values of the section `train` of a spec by dotted key."""
    return flatten({"train": experiment.train.model_dump()})


def _splits(sweep: SweepConfig, stages: Collection[str]) -> list[DataSplit]:
    """Return the validation split of the trials and those of the repeats, if they are trained.

    Raises:
        InputError: a split cannot be made, or nothing can be ranked in it.
    """
    experiment, splits = sweep.experiment, []
    with error_context("dataset.train_dataset_dir"):
        folders = list_training_folders(experiment)
    if experiment.dataset.validation != "holdout":  # The same for all runs.
        return [load_given_validation(experiment, folders)]
    last_repeat = first_proof_repeat(sweep) + sweep.file.confirm.repeats - 1 if "confirm" in stages else 0
    for repeat in range(1 + last_repeat):
        seed = experiment.dataset.validation_seed + repeat
        dataset = experiment.dataset.model_copy(update={"validation_seed": seed})
        subject = f"repeat {repeat} of confirm, with dataset.validation_seed = {seed}" if repeat else "the search"
        with error_context(f"the validation split of {subject}"):
            splits.append(load_split(experiment.model_copy(update={"dataset": dataset}), folders))
            splits[-1].require_rankable()
    return splits


def _count_identities(split: DataSplit) -> int:
    """Return the number of identities for training."""
    return len({record.identity for record in split.train})


def _require_identities(sweep: SweepConfig, experiments: list[Experiment], identities: int) -> None:
    for experiment in experiments:
        for workers in {sweep.file.resources.workers, sweep.file.resources.refit_workers}:
            require_divisible_batch(experiment, workers)
        dataset = experiment.dataset
        needed = dataset.batch_size // dataset.num_instances
        if needed > identities:
            raise InputError(
                f"dataset.batch_size = {dataset.batch_size} with dataset.num_instances = {dataset.num_instances} needs "
                f"{needed} identities, but a validation split leaves {identities} for training: lower batch_size."
            )


def _test_sets(experiment: Experiment) -> list[EvaluationSet]:
    """Return the test sets of the stage `test` after decoding their images."""
    try:
        sets = evaluation_sets(experiment)
        require_readable(
            [record for test in sets for folder in (test.query, test.gallery) for record in folder.records]
        )
    except ReidTuneError as error:
        raise InputError(f"the stage test needs its folders: {error} Or stop before it with --until export.") from None
    return sets


def _warnings(sweep: SweepConfig, split: DataSplit) -> list[str]:
    lines = describe_validation(sweep, split)
    searched = {parameter.key for parameter in sweep.space.parameters}
    schedule_keys = searched & {"train.optim.lr_steps", "train.num_epochs"}
    if schedule_keys and sweep.file.scheduler.name == "asha":
        lines.append(
            f"{', '.join(sorted(schedule_keys))} with asha: trials are compared at different points of their schedules."
        )
    return lines
