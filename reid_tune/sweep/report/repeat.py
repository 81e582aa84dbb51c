"""The commands that train a trial of a sweep once more."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from reid_tune.sweep.state import RunState, SweepState

__all__ = ["inline", "repeat_commands"]


def repeat_commands(state: SweepState, trial: RunState, spec: Path) -> dict[str, str]:
    """Command lines by what they do.

    Args:
        spec: The sweep's whole spec, that of trial 0.
    """
    results = f"results/{state.header['name']}-trial-{trial.number}"
    return {
        "As in the search, judged on the held-out identities": _command(spec, trial.parameters, results),
        "On all training identities, as in the refit": _command(
            spec, {**trial.parameters, "dataset.validation": "none"}, f"{results}-all"
        ),
    }


def _command(spec: Path, parameters: dict[str, Any], results: str) -> str:
    pairs = [f"{key}={inline(value)}" for key, value in {**parameters, "train.results_dir": results}.items()]
    return shlex.join(["reid-tune", "train", "-e", str(spec), *pairs])


def inline(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
