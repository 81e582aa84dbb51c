"""Search-space files and constraints that nobody would write: an error is one sentence, and comes at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.search_space.constraints import parse_constraint
from reid_tune.search_space.load import load_sweep
from reid_tune.search_space.parse import parse_spaces

from ..config.test_examples import EXAMPLES
from ..helpers.search_spaces import BASE
from .mutations import changed_json, fuzz, one_input
from .test_specs import KEYS, MISTAKES
from .texts import VALUES, changed_text

SPACE = """
name: fuzz
spec: spec.yaml
storage: runs
space:
  train.optim.base_lr: {loguniform: [1.0e-5, 1.0e-2]}
  train.optim.name: {choice: [Adam, SGD]}
  train.optim.momentum: {uniform: [0.5, 0.99], when: {train.optim.name: SGD}}
constraints: [train.optim.base_lr < 0.005]
budget: {trials: 3}
registry: {model: fuzz}
"""
FILE_KEYS = [
    f"sweep.{key}" for key in ("name", "spec", "storage", "space", "budget", "constraints", "search.start_from")
]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["resnet"])
    return path


@fuzz(40)
@given(text=changed_text(SPACE))
def test_a_changed_search_space(spec: Path, text: str) -> None:
    path = spec.with_name("sweep.yaml")
    path.write_bytes(text.encode(errors="surrogatepass"))
    with one_input(lines=MISTAKES):
        load_sweep(path)


@fuzz(40)
@given(pairs=st.lists(st.tuples(st.sampled_from(KEYS + FILE_KEYS), VALUES), max_size=3))
def test_overrides_of_a_search_space(spec: Path, pairs: list[tuple[str, str]]) -> None:
    path = spec.with_name("sweep.yaml")
    path.write_text(SPACE)
    with one_input(lines=MISTAKES):
        load_sweep(path, [f"{key}={value}" for key, value in pairs])


RANGES = {
    "train.optim.base_lr": {"loguniform": [1e-5, 1e-2]},
    "train.optim.name": {"choice": ["Adam", "SGD"]},
    "train.optim.momentum": {"uniform": [0.5, 0.99], "when": {"train.optim.name": "SGD"}},
    "dataset.num_instances": {"int": [2, 8, 2]},
    "train.optim.weight_decay": [
        {"quniform": [0.0, 0.1, 0.01], "when": {"train.optim.name": ["Adam"]}},
        {"uniform": [0, 1], "when": {"train.optim.name": "SGD"}},
    ],
    "re_ranking.k1": {"choice": [10, 20]},
}


@fuzz(60)
@given(tree=changed_json(RANGES))
def test_changed_ranges(tree: object) -> None:
    if isinstance(tree, dict):  # the file's schema requires it
        with one_input("some.yaml", lines=MISTAKES):
            parse_spaces(tree, [], BASE, "some.yaml")


WORDS = st.one_of(
    st.sampled_from(["train.optim.base_lr", "dataset.batch_size", "train.optim.name", "train.optim.lr_steps"]),
    st.sampled_from(["model.reduce_feat_dim", "model.no_margin", "x.__class__", "'a'", "[1, 2]", "[]", "None", "True"]),
    st.sampled_from(["0", "-1", "1e308", "9" * 30, "9" * 4300, "9" * 5000, "0x" + "f" * 4000, "1e999", "1j", "_"]),
    st.sampled_from([" + ", " - ", " * ", " / ", " // ", " % ", " ** ", " < ", " == ", " in ", " not in ", " is "]),
    st.sampled_from([" and ", " or ", "not ", "(", ")", "[", "]", ",", "len(", "min(", "max(", "abs(", "lambda: "]),
    st.sampled_from(["(" * 300, "-" * 3000, "not " * 2000, "[" * 150, "\x00", "\ud800", "\x1b", "\n", "#", "'", "\\d"]),
    st.text(max_size=4),
)
OPERANDS = WORDS.filter(str.strip)
ARITHMETIC = st.lists(OPERANDS, min_size=2, max_size=12).map(" * ".join)


@pytest.mark.filterwarnings("error")
@fuzz(150)
@given(text=st.lists(WORDS, max_size=12).map("".join) | ARITHMETIC)
def test_expressions(text: str) -> None:
    with one_input("constraints: ", errors=(ValueError,)):
        parse_constraint(text, BASE).is_satisfied(BASE)
