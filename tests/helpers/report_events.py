"""The events of a sweep, written by hand."""

from typing import Any

RATE, STEPS = "train.optim.base_lr", "train.optim.lr_steps"
SCORE = {"mAP": 0.5, "mINP": 0.25, "Rank-1": 0.75, "Rank-5": 1.0, "Rank-10": 1.0, "queries": 12, "gallery": 40}
SEARCH = {"finished": 2, "ended_by": "hours", "budget": {"trials": 5, "hours": 3}}
GAIN = {"mean": 0.125, "low": 0.0625, "high": 0.1875, "repeats": 2}
LEVEL = {"mean": 0.0, "low": -0.125, "high": 0.125}
PLAN = {"rungs": [2], "hours": 0.1, "stages": {"confirm": {"runs": 4}, "refit": {"runs": 2}}}
CONFIRM = {
    "winner": 2,
    "best": 2,
    "repeats": 2,
    "trials": [
        {"number": 0, "values": [0.25, 0.5], "mean": 0.375, "best_against_it": GAIN, "against_trial0": None},
        {"number": 2, "values": [0.375, 0.625], "mean": 0.5, "best_against_it": None, "against_trial0": GAIN},
    ],
    "failed": [],
}
RERANK = {"settings": 36, "winner": {"setting": {"k1": 6, "k2": 3, "lambda_value": 0.25}, "plain": 0.5, "mAP": 0.625}}
RERANK["winner"]["gain"] = GAIN  # type: ignore[index]
LATENCY = {"device": "x", "threads": 1, "batches": {}}
TEST: dict[str, Any] = {
    "winner": {"plain": SCORE, "re_ranked": SCORE | {"mAP": 0.625}, "checkpoint": SCORE},
    "trial0": {"plain": SCORE},
}
TEST["winner"]["extra_tests"] = {"night": {"plain": SCORE | {"mAP": 0.125}}}
TEST["winner"]["against_trial0"] = {"plain": dict.fromkeys(("mAP", "mINP", "Rank-1"), LEVEL)}
REGISTERED = {"model": "m", "version": 2, "alias": "champion", "reason": "no other version had the alias"}


def timed(models: dict[str, Any]) -> dict[str, Any]:
    return {name: model | {"latency": LATENCY} for name, model in models.items()}


def events(until: str = "register") -> list[dict[str, Any]]:
    """A sweep with trials 0 (full), 1 (failed), 2 (full, best), 3 (stopped), 4 (running)."""

    def report_of(number: int, epoch: int, value: float) -> dict[str, Any]:
        metrics = {"loss": 1.0, "mAP": value}
        return {"kind": "report", "run": f"trials/{number:04d}", "epoch": epoch, "metrics": metrics}

    def ended(number: int, state: str, epoch: int, **more: str) -> dict[str, Any]:
        return {"kind": "ended", "run": f"trials/{number:04d}", "state": state, "epoch": epoch, **more}

    sweep = {"objective": {"metric": "mAP", "mode": "max"}, "budget": {"trials": 5, "hours": 3}}
    spec = {RATE: 0.00035, STEPS: [40, 70]}
    made: list[dict[str, Any]] = [
        {"kind": "sweep", "name": "s", "uid": "u", "sweep": sweep, "spec": spec},
        {"kind": "driver", "pid": 1},
        {"kind": "stage", "stage": "preflight", "state": "done", "result": PLAN},
        {"kind": "stage", "stage": "search", "state": "started", "result": {}},
    ]
    for number, parameters in enumerate([{}, *({RATE: 0.001 * n, STEPS: [n]} for n in range(1, 5))]):
        made.append({"kind": "suggested", "run": f"trials/{number:04d}", "parameters": parameters, "origin": "sampler"})
        made.append({"kind": "attempt", "run": f"trials/{number:04d}", "attempt": 1})
    made += [
        report_of(0, 1, 0.25),
        report_of(0, 2, 0.375),
        ended(0, "finished", 2),
        ended(1, "failed", 0, reason="the GPU is full", failure="out_of_memory"),
        report_of(2, 2, 0.5),
        ended(2, "finished", 2),
        report_of(3, 2, 0.125),
        ended(3, "stopped", 2, reason="below rung 2"),
        report_of(4, 1, 0.1875),
    ]
    if until == "register":
        made += [
            {"kind": "stage", "stage": "search", "state": "done", "result": SEARCH},
            {"kind": "stage", "stage": "confirm", "state": "done", "result": CONFIRM},
            {"kind": "stage", "stage": "rerank", "state": "done", "result": RERANK},
            {"kind": "stage", "stage": "refit", "state": "started", "result": {}},
            {"kind": "suggested", "run": "refit/winner", "parameters": {RATE: 0.002}},
            {"kind": "ended", "run": "refit/winner", "state": "failed", "epoch": 0, "reason": "the disk"},
            {"kind": "stage", "stage": "refit", "state": "done", "result": {}},
            {
                "kind": "stage",
                "stage": "test",
                "state": "done",
                "result": {"models": timed(TEST), "looks": {"test folders": 1}},
            },
            {"kind": "stage", "stage": "register", "state": "done", "result": REGISTERED},
        ]
    return [{"time": 100.0 + number, **event} for number, event in enumerate(made)]
