"""The three questions that a report answers first: better than the baseline, better than the champion, at what cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reid_tune.journal.costs import Cost
from reid_tune.journal.state import SweepState
from reid_tune.report.formatting import format_spent
from reid_tune.report.summary import baseline_score
from reid_tune.tables import format_count
from reid_tune.tracking.registry.aliases import CHALLENGER

__all__ = ["Answer", "answer_questions", "baseline_answer", "champion_answer", "cost_answer"]

_RUNS = {"trials": "trial", "confirm": "repeat", "refit": "refit"}  # folder of the runs: name of one
_LIMITS = {"hours": "hours", "gpu_hours": "GPU-hours", "cpu_hours": "CPU-hours"}


@dataclass(frozen=True)
class Answer:
    """An answer to one question about a sweep.

    Attributes:
        question: The question.
        verdict: The answer in a few words.
        explanation: Numbers and reasons, one or more sentences.
    """

    question: str
    verdict: str
    explanation: str

    def __str__(self) -> str:
        return f"{self.question} {self.verdict}. {self.explanation}"


def answer_questions(state: SweepState, spent: Cost) -> list[Answer]:
    """Return the answers to the three questions, in their order.

    Args:
        state: State of the sweep, at any time.
        spent: Cost of the sweep until now.
    """
    return [baseline_answer(state), champion_answer(state), cost_answer(state, spent)]


def baseline_answer(state: SweepState) -> Answer:
    """Return whether the winner is better than trial 0, by how much, and how sure that is."""
    result = state.stages.get("confirm")
    verdict, explanation = _search_comparison(state) if result is None else _confirm_comparison(state, result)
    return Answer("Is the winner better than the baseline?", verdict, explanation)


def champion_answer(state: SweepState) -> Answer:
    """Return whether the winner is better than the registered champion, and which version is in use now."""
    confirm_result, registered = state.stages.get("confirm"), state.stages.get("register")
    if registered is not None:
        verdict, explanation = _registration(registered)
    elif confirm_result is None:
        verdict, explanation = "Not known yet", "The stage confirm compares the winner with it, if there is one."
    elif (check := confirm_result["champion"]) is None:
        verdict, explanation = "There is none", "No version had the alias when the sweep began."
    else:
        is_accepted = check["verdict"]["is_accepted"]
        decision = "It may replace the champion." if is_accepted else "The champion remains in use."
        verdict, explanation = _champion_comparison(check["verdict"], decision)
    return Answer("Is the winner better than the champion?", verdict, explanation)


def cost_answer(state: SweepState, spent: Cost) -> Answer:
    """Return the hours that were spent, the number of runs, and the budget."""
    counts = {unit: sum(name.startswith(f"{kind}/") for name in state.runs) for kind, unit in _RUNS.items()}
    explanation = ", ".join(format_count(count, unit) for unit, count in counts.items() if count) or "No runs"
    budget = state.header.sweep.get("budget", {})
    limits = [f"{budget[key]:g} {unit}" for key, unit in _LIMITS.items() if budget.get(key) is not None]
    if limits:
        explanation += f". The budget: {' and '.join(limits)}"
    return Answer("What was spent?", format_spent(spent), f"{explanation}.")


def _search_comparison(state: SweepState) -> tuple[str, str]:
    """Return verdict and explanation before the stage `confirm`, which is yet to compare."""
    best, baseline = next(iter(state.finished()), None), baseline_score(state)
    if best is None:
        return "Not known yet", "No trial has reached its last epoch."
    if baseline is None:
        return "Not known yet", "Trial 0 has not reached its last epoch."
    if best.number == 0:
        return "Not so far", "No trial has beaten the spec, which is trial 0, in the search."
    gain = 100 * ((best.last(state.metric) or 0.0) - baseline)
    return "Not known yet", (
        f"In the search trial {best.number} has {gain:+.1f} points of {state.metric} against trial 0, but the best of "
        "many noisy scores is too good. The stage confirm compares both on new seeds and validation splits."
    )


def _confirm_comparison(state: SweepState, result: Mapping[str, Any]) -> tuple[str, str]:
    """Return verdict and explanation by the one comparison of the stage `confirm`."""
    winner = result["winner"]
    difference = next((row["against_trial0"] for row in result["trials"] if row["against_trial0"]), None)
    if difference is None:
        other = "trial 0" if winner else "any other trial"
        return "Not known", f"Trial {winner} was not compared with {other}: only its own repeats are complete."
    gain = f"Trial {result['selected']}: {100 * difference['mean']:+.1f} points of {state.metric} against trial 0"
    explanation = f"{gain}, mean of {format_count(difference['repeats'], 'repeat')}. {_explain_chance(difference)}"
    verdict = _verdict(difference) if winner else "No, the baseline wins"
    return verdict, f"{explanation}{_reason_of_choice(winner, difference, state.costs)}"


def _reason_of_choice(winner: int, difference: Mapping[str, Any], costs: Sequence[str]) -> str:
    """Return why this one of the two compared trials is the winner; empty if it is proven better."""
    if bool(winner) == (difference["mean"] > 0):
        return "" if winner and _is_proven(difference) else f" Trial {winner} wins by its mean."
    return (
        f" Trial {winner} wins because it costs less ({', then '.join(costs)}) and is expected to lose at most "
        "confirm.margin."
    )


def _registration(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return verdict and explanation by the result of the stage `register`."""
    version, alias, incumbent = result["version"], result["alias"], result.get("against")
    if incumbent is None:
        return "There was none", f"{result['model']} had no other champion: version {version} has the alias {alias}."
    if alias == CHALLENGER:
        decision = f"Version {incumbent} remains in use, and version {version} has the alias {alias}."
    else:
        decision = f"Version {version} has the alias {alias} instead of version {incumbent}."
    return _champion_comparison(result, decision)


def _champion_comparison(comparison: Mapping[str, Any], decision: str) -> tuple[str, str]:
    """Return verdict and explanation by a comparison with the champion, and what it has decided."""
    difference, reason = comparison["difference"], comparison["reason"]
    verdict = "Not compared" if difference is None else _verdict(difference)
    return verdict, f"{reason[:1].upper()}{reason[1:]}. {decision}"


def _is_proven(difference: Mapping[str, Any]) -> bool:
    return difference["low"] is not None and difference["low"] > 0


def _verdict(difference: Mapping[str, Any]) -> str:
    if _is_proven(difference):
        return f"Yes, by {100 * difference['mean']:.1f} points"
    return "No" if difference["high"] is not None and difference["high"] < 0 else "Not proven"


def _explain_chance(difference: Mapping[str, Any]) -> str:
    """Return how sure a mean difference is."""
    low, high = difference["low"], difference["high"]
    if low is None:
        return "One repeat does not show how much of that is chance."
    bounds = f"{100 * low:+.1f} to {100 * high:+.1f} points"
    if low <= 0 <= high:
        return f"It could be chance: the 95 % interval, {bounds}, contains 0."
    return f"It is hardly chance: the 95 % interval is {bounds}."
