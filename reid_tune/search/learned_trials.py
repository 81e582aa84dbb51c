"""Trials of earlier sweeps as prior data of the sampler `auto`."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reid_tune.config.diff import changes_training
from reid_tune.errors import InputError
from reid_tune.journal.state import SweepState
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.trial_model import UNTRAINABLE
from reid_tune.search.warm_start import earlier_values, load_earlier_sweep
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import SearchSpace
from reid_tune.search_space.weights import WEIGHTS_KEY

__all__ = ["LearnedSweep", "learned_sweeps"]

_MIN_TRIALS = 2  # with a score
# Keys that do not change the score of a trial, which uses one GPU at most. Images are compared by their fingerprint.
_WITHOUT_EFFECT = (
    "dataset.train_dataset_dir",
    "dataset.test_dataset_dir",
    "dataset.query_dataset_dir",
    "dataset.extra_tests",
    "train.num_gpus",
    "train.gpu_ids",
)


@dataclass(frozen=True)
class LearnedSweep:
    """The usable trials of an earlier sweep, recorded in the log so that a resume does not need that sweep.

    Attributes:
        name: Name of the sweep.
        uid: Its unique identifier.
        trials: Trials, each with its `number`, its `parameters` in this space, `full_length` in epochs, `scores` by
            epoch, `is_failed`, and `is_same`: whether data and spec, searched keys aside, are those of this sweep.
        left_out: Number of trials with a score whose configuration this space does not have.
    """

    name: str
    uid: str
    trials: list[dict[str, Any]]
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """Return the sweep as plain data."""
        return asdict(self)


def learned_sweeps(
    sweep: SweepConfig, fingerprint: str | None, pretrained: Mapping[str, str] = {}
) -> tuple[list[LearnedSweep], list[str]]:
    """Return the sweeps that `search.learn_from` names, and a warning for each one with trials that are left out.

    Args:
        sweep: Sweep that learns.
        fingerprint: Fingerprint of its training images.
        pretrained: By file of its pretrained weights the SHA-256 digest.

    Raises:
        InputError: the sampler is not `auto`, or a sweep does not exist, has another metric or fewer than two trials
            with a score in this space.
    """
    names = sweep.file.search.learn_from
    source = f"{sweep.source}: search.learn_from"
    if names and sweep.file.search.sampler != "auto":
        raise InputError(f"{source}: the sampler {sweep.file.search.sampler} learns from no other sweep: use auto.")
    learned, warnings = list[LearnedSweep](), list[str]()
    for name in dict.fromkeys((names,) if isinstance(names, str) else names):
        earlier = _learned(sweep, load_earlier_sweep(sweep, name, source), fingerprint, pretrained)
        if sum(bool(trial["scores"]) and not trial["is_failed"] for trial in earlier.trials) < _MIN_TRIALS:
            raise InputError(
                f"{source}: {name} has fewer than {_MIN_TRIALS} trials with a score in this space: name another sweep."
            )
        learned.append(earlier)
        if earlier.left_out:
            count = len(earlier.trials) + earlier.left_out
            warnings.append(
                f"learn_from: {earlier.left_out} of {count} trials of {name} left out: "
                "this space cannot have their values."
            )
    return learned, warnings


def _learned(
    sweep: SweepConfig, state: SweepState, fingerprint: str | None, pretrained: Mapping[str, str]
) -> LearnedSweep:
    data = state.environment.get("data") or {}
    has_same_data = fingerprint is not None and data.get("fingerprint") == fingerprint
    digests = state.stages.get("preflight", {}).get("pretrained", {})
    changed_files = {file for file, digest in pretrained.items() if digests.get(file, digest) != digest}
    encoding = SpaceEncoding(sweep.space)
    trials, left_out = list[dict[str, Any]](), 0
    for run in state.trials:
        metrics = {str(epoch): values.get(state.metric, math.nan) for epoch, values in run.epochs.items()}
        scores = {epoch: score for epoch, score in metrics.items() if math.isfinite(score)}
        is_failed = run.failure in UNTRAINABLE
        if not scores and not is_failed:
            continue
        values = earlier_values(state, run, pretrained)
        parameters = sweep.space.complete(values)
        if not encoding.has_place(parameters):
            left_out += 1
            continue
        is_same = has_same_data and values.get(WEIGHTS_KEY) not in changed_files
        trials.append(
            {
                "number": run.number,
                "parameters": parameters,
                "full_length": values["train.num_epochs"],
                "scores": scores,
                "is_failed": is_failed,
                "is_same": is_same and _is_same_spec(sweep.space, parameters, values),
            }
        )
    return LearnedSweep(state.header.name, state.header.uid, trials, left_out)


def _is_same_spec(space: SearchSpace, parameters: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a spec trains as a configuration of the space does."""
    expected = space.base | dict(parameters)
    keys = [key for key in expected if changes_training(key) and key not in _WITHOUT_EFFECT]
    return all(values.get(key) == expected[key] for key in keys)
