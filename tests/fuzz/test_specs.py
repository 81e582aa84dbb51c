"""Specs and overrides that nobody would write: an error is one sentence, and comes at once."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reid_tune.config.keys import LEAVES, SECTIONS
from reid_tune.config.load import load_spec
from reid_tune.config.task_keys import TASKS
from reid_tune.config.yaml_reader import parse_overrides

from ..config.test_examples import EXAMPLES
from .mutations import fuzz, one_input
from .texts import VALUES, changed_text

MISTAKES = 22  # lines of a message that names all of them
KEYS = sorted(LEAVES | SECTIONS | {"model_name", "wandb", "wandb.name", "model.jpm", "train.optim.steps", "sweep.name"})


@fuzz(30)
@given(
    st.sampled_from(sorted(EXAMPLES)).flatmap(lambda name: changed_text(EXAMPLES[name])),
    st.sampled_from([None, *TASKS]),
)
def test_a_changed_spec(tmp_path: Path, text: str, task: str | None) -> None:
    path = tmp_path / "changed.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with one_input(lines=MISTAKES):
        loaded = load_spec(path, task=task)
        assert all("\n" not in note for note in loaded.notes)


@fuzz(25)
@given(
    st.lists(st.tuples(st.sampled_from(KEYS) | st.text(max_size=12), VALUES), max_size=4),
    st.sampled_from([None, *TASKS]),
)
def test_overrides(tmp_path: Path, pairs: list[tuple[str, str]], task: str | None) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["swin"])
    with one_input(lines=MISTAKES):
        parse_overrides([f"{key}={value}" for key, value in pairs])
    with one_input(lines=MISTAKES):
        load_spec(path, [f"{key}={value}" for key, value in pairs], task)
