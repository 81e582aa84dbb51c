"""What a sweep will take, before it begins."""

from dataclasses import asdict
from itertools import pairwise
from typing import Any

from reid_tune.execution.probe_steps import ProbeResult
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import Cost
from reid_tune.search.budget import BUDGET_UNITS, StageEstimate, estimate_later_stages
from reid_tune.search_space.load import SweepConfig

__all__ = ["expected_epochs", "make_plan"]


def make_plan(
    sweep: SweepConfig, levels: tuple[int, ...], measured: ProbeResult, trials: StageResources, refits: StageResources
) -> dict[str, Any]:
    """Runs, epochs and hours of the search, confirm and refit, as plain data for `--dry-run` and the log.

    Rerank, export, test and register take minutes and are left out. `pace` are the seconds of a trial's start and of
    its epochs, `warnings` what the budget does not reach for.

    Args:
        levels: ASHA's rungs.
        trials: Of the trials and their repeats.
        refits: Of the refits.
    """
    count, full = sweep.file.budget.trials, sweep.experiment.train.num_epochs
    pace = measured.epoch_timing(sweep.experiment, levels)
    epochs = expected_epochs(count - 1, levels, sweep.file.scheduler.reduction_factor, full)
    others = [pace.seconds(epochs / (count - 1))] * (count - 1) if count > 1 else []
    search = StageEstimate(count, full + epochs, trials.cost([pace.seconds(full), *others]))
    later = estimate_later_stages(sweep, pace, full, trials, refits)
    stages = {"search": search, **later}
    kept = sum((stage.cost for stage in later.values()), Cost())
    return {
        "trials": count,
        "at_once": trials.max_concurrent,
        "cpus_per_run": trials.per_run.cpus,
        "gpus_per_run": trials.per_run.gpus,
        "stages": {name: _plain(stage) for name, stage in stages.items()},
        **_rounded(search.cost + kept),
        "pace": asdict(pace),
        "probe": measured.as_dict(),
        "warnings": _warnings(sweep, kept + trials.cost([pace.seconds(full)]), search.cost + kept),
    }


def expected_epochs(trials: int, levels: tuple[int, ...], factor: int, num_epochs: int) -> float:
    """Epochs that these trials, trial 0 not among them, are expected to take under ASHA.

    With rungs at r_1 < ... < r_K epochs, full length r_(K+1) and a_k of n trials beyond rung k (a_0 = n, r_0 = 0) that
    is the sum over k of a_k (r_(k+1) - r_k). For values that are independent and uniform, the m-th of the n trials to
    reach a rung, where m values (trial 0's too) stand already, is above their 1 - 1/f quantile, interpolated as in
    `Asha`, with the probability 1/f + (1 - 2/f) / (m + 1); so a_(k+1) is its sum over m = 1 ... a_k. In long searches
    that is a_k / f; it is more in short ones, where few values stand. Where the best at one rung are the best at the
    next too, searches take more: of 25 trials or more up to a fifth, of 8 up to two thirds.
    """
    below = [level for level in levels if level < num_epochs]
    total, arriving = 0.0, float(trials)
    for begin, end in pairwise([0, *below, num_epochs]):
        total += arriving * (end - begin)
        arriving = _survivors(arriving, factor)
    return total


def _survivors(arriving: float, factor: int) -> float:
    whole = int(arriving)
    chances = [1 / factor + (1 - 2 / factor) / (standing + 1) for standing in range(1, whole + 2)]
    return sum(chances[:whole]) + (arriving - whole) * chances[whole]


def _warnings(sweep: SweepConfig, least: Cost, all_of_it: Cost) -> list[str]:
    lines = []
    for unit in BUDGET_UNITS:
        limit = getattr(sweep.file.budget, unit)
        if limit is None:
            continue
        if (needed := getattr(least, unit)) > limit:
            lines.append(
                f"budget.{unit} = {limit:g} does not reach for trial 0, confirm and refit, which need about "
                f"{_about(needed)}: no other trial will begin; raise it, or lower confirm.top or confirm.seeds."
            )
        elif (whole := getattr(all_of_it, unit)) > limit:
            lines.append(
                f"budget.{unit} = {limit:g} will end the search before its {sweep.file.budget.trials} trials, "
                f"which need about {_about(whole)} with the later stages."
            )
    return lines


def _plain(stage: StageEstimate) -> dict[str, float]:
    return {"runs": stage.runs, "epochs": round(stage.epochs, 1), **_rounded(stage.cost)}


def _rounded(cost: Cost) -> dict[str, float]:
    return {unit: round(getattr(cost, unit), 4) for unit in BUDGET_UNITS}


def _about(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
