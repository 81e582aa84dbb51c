"""The plan of a sweep, for people."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from reid_tune.tables import format_duration

__all__ = ["plan_table", "plan_lines"]


def plan_table(plan: dict[str, Any]) -> Table:
    """Runs, epochs and time of the stages that train."""
    held = "GPU-hours" if plan["gpus_per_run"] else "CPU-hours"
    key = held.lower().replace("-", "_")
    table = Table(title=f"{plan['name']}: what it will take, by 20 steps of the spec")
    for name in ("stage", "runs", "epochs", "time", held):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name, stage in plan["stages"].items():
        row = str(stage["runs"]), f"{stage['epochs']:.0f}", format_duration(3600 * stage["hours"]), f"{stage[key]:.2f}"
        table.add_row(name, *row)
    table.add_row("all", "", "", format_duration(3600 * plan["hours"]), f"{plan[key]:.2f}", style="bold")
    return table


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """What the sweep works on, and what is doubtful about it."""
    probe, pace = plan["probe"], plan["pace"]
    yield (
        f"data: {plan['training_images']:,} images of {plan['training_identities']:,} identities to train with, "
        f"{plan['held_out_identities']:,} identities held out"
    )
    if plan["pretrained"]:
        yield f"pretrained weights: {plan['pretrained']['file']}"
    yield (
        f"a run: {plan['cpus_per_run']} CPU and {plan['gpus_per_run']:g} GPU, {plan['at_once']} at once; "
        f"{format_duration(pace['start'])} to start, {format_duration(pace['epoch'])} for an epoch of "
        f"{probe['steps']} steps, "
        f"{(probe['gpu_memory'] or probe['memory']) / 1e9:.1f} GB of {'GPU ' if probe['gpu_memory'] else ''}memory"
    )
    if probe["gpu_memory"]:
        yield _step_words(probe)
    if plan["rungs"]:
        yield f"ASHA compares at epoch {', '.join(map(str, plan['rungs']))}"
    if plan["given"]:
        yield f"tried first, behind trial 0: {', '.join(given['origin'] for given in plan['given'])}"
    yield "rerank, export, test and register train nothing and take minutes; on a busy machine all takes longer"
    yield f"folder: {plan['folder']}"
    for warning in plan["warnings"]:
        yield f"warning: {warning}"


def _step_words(probe: dict[str, Any]) -> str:
    """What a step takes of a GPU's memory, and the largest batch that fits."""
    step = f"a step takes {probe['step_memory'] / 1e9:.1f} GB of it at its peak; " if probe["step_memory"] else ""
    if not probe["largest_batch"]:
        return f"{step}the largest batch that fits is not estimated for this spec"
    return f"{step}largest batch that fits, estimated from two batch sizes: {probe['largest_batch']}"
