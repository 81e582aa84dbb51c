"""A view of an experiment's table that MLflow's page opens with: the trials of a sweep, the best first."""

import json

from reid_tune.journal.events import SweepHeader

__all__ = ["VIEW_TAG", "leaderboard_view", "experiment_page"]

_KEY = "leaderboard"
VIEW_TAG = f"mlflow.sharedViewState.{_KEY}"


def experiment_page(experiment: str) -> str:
    """The address of the view, behind that of the server; it tells MLflow that this is no matter of language models.

    Args:
        experiment: Its id.
    """
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={_KEY}"


def leaderboard_view(header: SweepHeader, parent: str) -> str:
    """The value of the experiment's tag, as MLflow 3.17's own button "Share view" writes it.

    Args:
        parent: The run of the sweep.
    """
    metric = f"metrics.`val/{header.objectives[0]}`"
    searched = [key for key in header.sweep.get("space", {}) if not key.startswith("re_ranking.")]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.kind = 'trials'",
        "orderByKey": metric,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [metric, "tags.`state`", *(f"tags.`search.{key}`" for key in searched)],
    }
    moment = round(header.time * 1000)
    about = {"name": "Leaderboard", "createdAt": moment, "updatedAt": moment, "state": json.dumps(state)}
    return json.dumps(about)
