import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.spec.load import load_experiment, with_parameters
from reid_tune.sweep.progress import read_sweep
from reid_tune.sweep.report.page import SPEC, write_page
from reid_tune.sweep.report.repeat import inline, repeat_commands

from ..finished import simulate

LINES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LINES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINES, inner, max_size=2),
    max_leaves=5,
)


@given(VALUES)
def test_a_value_in_one_line_is_read_as_what_it_was(value: Any) -> None:
    text = inline(value)
    assert "\n" not in text and yaml.safe_load(text) == value


@pytest.mark.usefixtures("no_fsync")
def test_the_command_trains_what_the_winner_was(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=4)
    write_page(sweep.folder)
    state, _ = read_sweep(sweep.folder)
    winner = state.finished()[0]
    own = {"train.results_dir": f"results/simulated-trial-{winner.number}"}
    all_data = {"train.results_dir": own["train.results_dir"] + "-all", "dataset.validation": "none"}
    commands = repeat_commands(state, winner, sweep.folder / SPEC).values()
    for command, more in zip(commands, (own, all_data), strict=True):
        name, task, option, spec, *overrides = shlex.split(command)
        assert (name, task, option, spec) == ("reid-tune", "train", "-e", str(sweep.folder / "spec.yaml"))
        assert load_experiment(spec, overrides) == with_parameters(sweep.experiment, winner.parameters | more, "")
    assert sweep.experiment.dataset.validation == "holdout"
