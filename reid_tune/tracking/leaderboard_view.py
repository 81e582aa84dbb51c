"""Saved view of an experiment's table in MLflow: the trials of a sweep, the best first."""

import json

from reid_tune.journal.events import SweepHeader

__all__ = ["VIEW_TAG", "leaderboard_view", "experiment_page"]

_KEY = "leaderboard"
VIEW_TAG = f"mlflow.sharedViewState.{_KEY}"


def experiment_page(experiment: str) -> str:
    """Return the address of the view relative to that of the server.

    It asks for the pages of classical machine learning, as MLflow has other pages for language models.

    Args:
        experiment: Id of the experiment.
    """
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={_KEY}"


def leaderboard_view(header: SweepHeader, parent: str) -> str:
    """Return the value of the experiment's tag `VIEW_TAG`, in the format of MLflow 3.17's button "Share view".

    Args:
        parent: Id of the sweep's run.
    """
    metric = f"metrics.`val/{header.objectives[0]}`"
    search_keys = [key for key in header.sweep.get("space", {}) if not key.startswith("re_ranking.")]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.kind = 'trials'",
        "orderByKey": metric,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [metric, "tags.`state`", *(f"tags.`search.{key}`" for key in search_keys)],
    }
    created = round(header.time * 1000)
    view = {"name": "Leaderboard", "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return json.dumps(view)
