"""Sentences about the plan of a sweep."""

from collections.abc import Iterator
from typing import Any

from reid_tune.data.account import accounts_from_dict, describe_accounts
from reid_tune.journal.stages import STAGES, Stage
from reid_tune.tables import format_duration

__all__ = ["data_sentences", "plan_sentences"]

_WITHOUT_TRAINING: tuple[Stage, ...] = ("rerank", "export", "test", "register")


def data_sentences(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the training images, and for each part of the data the account of its files: seen, used and left out.

    Args:
        plan: Result of the stage `preflight`.
    """
    yield f"{plan['training_images']} training images of {plan['training_identities']} identities"
    yield f"{plan['held_out_identities']} identities held out for validation"
    for name, account in accounts_from_dict(plan["data"]).items():
        yield f"{name}: {account}"


def plan_sentences(plan: dict[str, Any], until: Stage = STAGES[-1]) -> Iterator[str]:
    """Yield the data, resources and settings of a sweep, and the warnings about them.

    Args:
        plan: Result of the stage `preflight`.
        until: Last stage that is run.
    """
    probe, timing = plan["probe"], plan["timing"]
    yield (
        f"data: {plan['training_images']:,} training images of {plan['training_identities']:,} identities, "
        f"{plan['held_out_identities']:,} identities held out for validation"
    )
    if left_out := describe_accounts(accounts_from_dict(plan["data"])):
        yield left_out
    if plan["pretrained"]:
        yield f"pretrained weights: {', '.join(plan['pretrained'])}"
    yield (
        f"a run: {plan['cpus_per_run']} CPU and {plan['gpus_per_run']:g} GPU, {plan['max_concurrent']} at once; "
        f"{format_duration(timing['start'])} to start, {format_duration(timing['epoch'])} for an epoch of "
        f"{probe['steps']} steps, "
        f"{(probe['gpu_memory'] or probe['memory']) / 1e9:.1f} GB of {'GPU ' if probe['gpu_memory'] else ''}memory"
    )
    if probe["gpu_memory"]:
        yield _gpu_memory_sentence(probe)
    if plan["rungs"]:
        later = ", later for trials with a longer warm-up than the shortest" if plan["rung_delay"] else ""
        yield (
            f"ASHA rungs: epoch {', '.join(map(str, plan['rungs']))}{later}; a trial is expected to train "
            f"{plan['epochs_per_trial']:.0f} of {plan['full_length']} epochs"
        )
    if plan["initial_points"]:
        yield f"warm starts, run right after trial 0: {', '.join(point['origin'] for point in plan['initial_points'])}"
    for earlier in plan["learned"]:
        same = sum(trial["is_same"] for trial in earlier["trials"])
        yield f"learns from {earlier['name']}: {len(earlier['trials'])} trials, {same} of them with these data and spec"
    if short := [stage for stage in _WITHOUT_TRAINING if stage in STAGES[: STAGES.index(until) + 1]]:
        yield f"not in the table, as nothing is trained and minutes are enough: {', '.join(short)}"
    yield "on a busy machine everything takes longer"
    yield f"folder: {plan['folder']}"
    for warning in plan["warnings"]:
        yield f"warning: {warning}"


def _gpu_memory_sentence(probe: dict[str, Any]) -> str:
    """Return the GPU memory of a training step, and the largest batch that fits."""
    step = f"peak of a step {probe['step_memory'] / 1e9:.1f} GB; " if probe["step_memory"] else ""
    if not probe["largest_batch"]:
        return f"{step}the largest batch that fits is not estimated for this spec"
    return f"{step}largest batch that fits, estimated from two batch sizes: {probe['largest_batch']}"
