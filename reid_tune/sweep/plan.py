"""The plan of a sweep: runs, epochs and hours of each stage, estimated before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from reid_tune.execution.placement import compute_placement
from reid_tune.execution.probe import run_probe
from reid_tune.execution.probe_steps import ProbeResult
from reid_tune.execution.stage_resources import StageResources, resolve_stage_resources
from reid_tune.journal.costs import Cost
from reid_tune.journal.events import ChampionRead
from reid_tune.journal.stages import STAGES, Stage
from reid_tune.search.budget import BUDGET_UNITS, require_gpus_for_gpu_hours
from reid_tune.search.reserve import FullLength, StageEstimate, estimate_later_stages
from reid_tune.search_space.load import SweepConfig, count_configurations
from reid_tune.sweep.stages.preflight import PreflightResult

__all__ = ["expected_epochs", "make_plan", "plan_from_probe", "plan_until"]

# Trials for each one that runs at once, below which most trials are drawn before a model exists.
_TRIALS_PER_SLOT = 6


def plan_from_probe(sweep: SweepConfig, checks: PreflightResult, champion: ChampionRead | None) -> dict[str, Any]:
    """Run the probe on Ray, and return the results of the checks with the plan.

    Raises:
        InputError: no run fits the cluster, GPU-hours are limited for runs without GPU, or the spec cannot be trained.
        InfrastructureError: the process of the probe was lost.
    """
    resources = sweep.file.resources
    trials = resolve_stage_resources(sweep, resources.workers)
    refits = resolve_stage_resources(sweep, resources.refit_workers)
    require_gpus_for_gpu_hours(sweep, trials)
    measured = run_probe(sweep, compute_placement(resources, resources.workers), resources.workers)
    plan = make_plan(sweep, checks.rungs.levels, measured, trials, refits, checks.rung_delay, champion)
    return checks.as_dict() | plan | {"warnings": checks.warnings + plan["warnings"]}


def make_plan(
    sweep: SweepConfig,
    levels: tuple[int, ...],
    measured: ProbeResult,
    trials: StageResources,
    refits: StageResources,
    rung_delay: float = 0.0,
    champion: ChampionRead | None = None,
) -> dict[str, Any]:
    """Return the plan as plain data, for `--dry-run` and the event log.

    It has runs, epochs and hours of search, confirm and refit; the other stages take minutes. `timing` has the seconds
    of a trial's start and of an epoch, `warnings` the limits of the budget that are too low, also for the sampler.

    Args:
        sweep: Sweep to plan.
        levels: Epochs of ASHA's rungs with the shortest warm-up.
        measured: Result of the probe.
        trials: Resources of trials and repeats; `refits` those of refits.
        rung_delay: Mean epochs by which longer warm-ups delay the rungs.
        champion: Registered champion, which `confirm` repeats too.
    """
    count, full = _count_trials(sweep), sweep.experiment.train.num_epochs
    timing = measured.epoch_timing(sweep.experiment, levels)
    rungs = [level + rung_delay for level in levels]
    epochs = expected_epochs(count - 1, rungs, sweep.file.scheduler.reduction_factor, full)
    others = [timing.seconds(epochs / (count - 1))] * (count - 1) if count > 1 else []
    search = StageEstimate(count, full + epochs, trials.cost([timing.seconds(full), *others]))
    candidates = [FullLength(timing, full)] * min(sweep.file.confirm.candidates + 1, count)
    later = estimate_later_stages(sweep, candidates, trials, refits, champion)
    reserve = sum((stage.cost for stage in later.values()), Cost())
    return {
        "trials": count,
        "epochs_per_trial": round(epochs / (count - 1), 1) if count > 1 else full,
        "full_length": full,
        "max_concurrent": trials.max_concurrent,
        "cpus_per_run": trials.per_run.cpus,
        "gpus_per_run": trials.per_run.gpus,
        "stages": {name: _plain_estimate(stage) for name, stage in {"search": search, **later}.items()},
        **_rounded(search.cost + reserve),
        "timing": asdict(timing),
        "probe": measured.as_dict(),
        "warnings": _warnings(sweep, reserve + trials.cost([timing.seconds(full)]), search.cost + reserve)
        + _sampler_warnings(sweep, trials.max_concurrent),
    }


def _count_trials(sweep: SweepConfig) -> int:
    """Return the number of trials; the budget of a small space may count networks above a limit on costs."""
    trials = sweep.file.budget.trials
    return min(trials, 1 + count_configurations(sweep.space, trials))


def plan_until(plan: Mapping[str, Any], last: Stage) -> dict[str, Any]:
    """Return a plan without the stages after the last one. Its warnings stay, as a budget reserves them anyway."""
    omitted = STAGES[STAGES.index(last) + 1 :]
    stages = {name: stage for name, stage in plan["stages"].items() if name not in omitted}
    if len(stages) == len(plan["stages"]):
        return dict(plan)
    totals = {unit: round(sum(stage[unit] for stage in stages.values()), 4) for unit in BUDGET_UNITS}
    return {**plan, **totals, "stages": stages}


def expected_epochs(trials: int, levels: Sequence[float], factor: int, num_epochs: int) -> float:
    """Return the epochs that the trials other than trial 0 are expected to take under ASHA.

    With rungs at r_1 < ... < r_K epochs, full length r_(K+1), and a_k of n trials beyond rung k (a_0 = n, r_0 = 0), it
    is the sum over k of a_k (r_(k+1) - r_k). For values that are independent and uniform, the m-th of the n trials to
    reach a rung, which has m values already (with that of trial 0), is above their 1 - 1/f quantile, interpolated as in
    `Asha`, with the probability 1/f + (1 - 2/f) / (m + 1). So a_(k+1) is the sum of that over m = 1 ... a_k. In long
    searches it is a_k / f; in short ones, where rungs have few values, it is more. If the best at one rung are also the
    best at the next one, searches take more: with 25 trials or more up to a fifth, with 8 up to two thirds.

    Args:
        trials: Number of trials without trial 0.
        levels: Epochs of ASHA's rungs.
        factor: ASHA's reduction factor.
        num_epochs: Full length in epochs.
    """
    below = [level for level in levels if level < num_epochs]
    total, arriving = 0.0, float(trials)
    for begin, end in pairwise([0, *below, num_epochs]):
        total += arriving * (end - begin)
        arriving = _survivors(arriving, factor)
    return total


def _survivors(arriving: float, factor: int) -> float:
    whole = int(arriving)
    probabilities = [1 / factor + (1 - 2 / factor) / (recorded + 1) for recorded in range(1, whole + 2)]
    return sum(probabilities[:whole]) + (arriving - whole) * probabilities[whole]


def _warnings(sweep: SweepConfig, minimum: Cost, total: Cost) -> list[str]:
    lines = []
    for unit in BUDGET_UNITS:
        limit = getattr(sweep.file.budget, unit)
        if limit is None:
            continue
        if getattr(minimum, unit) > limit:
            lines.append(
                f"budget.{unit} = {limit:g} is too low for trial 0, confirm and refit, which need about "
                f"{_format_hours(getattr(minimum, unit))}: no other trial will begin; raise it, or lower "
                "confirm.candidates or confirm.repeats."
            )
        elif getattr(total, unit) > limit:
            lines.append(
                f"budget.{unit} = {limit:g} will end the search before its {sweep.file.budget.trials} trials, "
                f"which need about {_format_hours(getattr(total, unit))} with the later stages."
            )
    return lines


def _sampler_warnings(sweep: SweepConfig, max_concurrent: int) -> list[str]:
    """Return a warning if most trials are drawn before their sampler has results to learn from.

    Not in a sweep that learns from earlier ones or tries all of its space, and not in a first try with few trials, most
    of which are drawn before there are results even one after the other.
    """
    trials, enough = sweep.file.budget.trials, _TRIALS_PER_SLOT * max_concurrent
    learns_alone = sweep.file.search.sampler in ("auto", "tpe") and not sweep.file.search.learn_from
    if not learns_alone or not _TRIALS_PER_SLOT < trials < enough:
        return []
    enough = min(enough, 1 + count_configurations(sweep.space, enough))
    if trials >= enough:
        return []
    return [
        f"{trials} trials with {max_concurrent} at once are few for the sampler {sweep.file.search.sampler}: most are "
        f"drawn before it has results to learn from; raise budget.trials to {enough} or lower resources.max_concurrent."
    ]


def _plain_estimate(stage: StageEstimate) -> dict[str, float]:
    return {"runs": stage.runs, "epochs": round(stage.epochs, 1), **_rounded(stage.cost)}


def _rounded(cost: Cost) -> dict[str, float]:
    return {unit: round(getattr(cost, unit), 4) for unit in BUDGET_UNITS}


def _format_hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
