"""Specs, overrides and search-space files that nobody would write: an error is one sentence, and comes at once.

`REID_TUNE_FUZZ=100000` sets the number of inputs of each test.
"""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid_tune.config.keys import LEAVES, SECTIONS
from reid_tune.config.load import load_spec
from reid_tune.config.task_keys import TASKS
from reid_tune.config.yaml_reader import parse_overrides
from reid_tune.errors import InputError
from reid_tune.search_space.load import load_sweep

from .test_examples import EXAMPLES
from .test_yaml_reader import laughs, merges

LIMIT_S = 10  # for one input; most take milliseconds
FUZZ = settings(
    max_examples=int(os.environ.get("REID_TUNE_FUZZ", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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
SNIPPETS = [
    *(
        "",
        " ",
        "\n",
        "\t",
        ":",
        "-",
        "? ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!set ",
        "!x ",
        "'",
        '"',
        "|",
        ">",
        "%",
        "@",
    ),
    *("[", "]", "{", "}", "[" * 60, "{a: " * 60, "${", "${results_dir}", "${.name}", "${oc.env:HOME}", "${train}"),
    *("${oc.decode:[}", "${oc.env:AWS_SECRET_ACCESS_KEY}", "???", "null", "~", ".nan", ".inf", "-1", "0", "1e400"),
    *("2001-99-99", "0x_", "1:30", "9" * 30, "9" * 5000, "x" * 5000, "\x00", "\x1b", "\ud800", "\u2028", "é" * 300),
    *(laughs(12), merges(12), "true", "yes", "{}", "[]", "[[]]", "[null]", "{a: {b: c}}", "a: b", "train", "swin_"),
]
KEYS = sorted(LEAVES | SECTIONS | {"model_name", "wandb", "wandb.name", "model.jpm", "train.optim.steps", "sweep.name"})
FILE_KEYS = [
    f"sweep.{key}" for key in ("name", "spec", "storage", "space", "budget", "constraints", "search.start_from")
]
VALUES = st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=30), st.lists(st.sampled_from(SNIPPETS)).map("".join))


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """A text in which a few spans are replaced, doubled or removed."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 1, 2, 5, 20, 100])))
        text = text[:start] + draw(st.one_of(VALUES, st.just(text[start:end] * 2))) + text[end:]
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


class Refused:
    """A context in which only an InputError of one short message may be raised, within the limit of time."""

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        assert time.perf_counter() - self._start < LIMIT_S
        if isinstance(error, InputError):
            lines = str(error).splitlines()
            assert len(lines) <= 22 and max(map(len, lines)) < 1000, str(error)[:2000]
            assert "\x00" not in str(error) and "\x1b" not in str(error)
            return True
        return False


@FUZZ
@given(st.sampled_from(sorted(EXAMPLES)).flatmap(lambda name: mutated(EXAMPLES[name])), st.sampled_from([None, *TASKS]))
def test_a_mutated_spec(folder: Path, text: str, task: str | None) -> None:
    path = folder / "mutated.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with Refused():
        loaded = load_spec(path, task=task)
        assert all("\n" not in note for note in loaded.notes)


@FUZZ
@given(
    st.lists(st.tuples(st.sampled_from(KEYS) | st.text(max_size=12), VALUES), max_size=4),
    st.sampled_from([None, *TASKS]),
)
def test_overrides(folder: Path, pairs: list[tuple[str, str]], task: str | None) -> None:
    path = folder / "spec.yaml"
    path.write_text(EXAMPLES["swin"])
    with Refused():
        parse_overrides([f"{key}={value}" for key, value in pairs])
    with Refused():
        load_spec(path, [f"{key}={value}" for key, value in pairs], task)


@FUZZ
@given(mutated(SPACE))
def test_a_mutated_search_space(folder: Path, text: str) -> None:
    (folder / "spec.yaml").write_text(EXAMPLES["resnet"])
    path = folder / "sweep.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with Refused():
        load_sweep(path)


@FUZZ
@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS + FILE_KEYS), VALUES),
        max_size=3,
    )
)
def test_overrides_of_a_search_space(folder: Path, pairs: list[tuple[str, str]]) -> None:
    (folder / "spec.yaml").write_text(EXAMPLES["resnet"])
    path = folder / "sweep.yaml"
    path.write_text(SPACE)
    with Refused():
        load_sweep(path, [f"{key}={value}" for key, value in pairs])
