"""Tags and names in a registry that other programs, or people, have written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.tracking.champion_comparison import COMPARISON_TAG, parse_verdict
from reid_tune.tracking.registry import overview
from reid_tune.tracking.registry.alias_changes import alias_histories, alias_holders, move_alias
from reid_tune.tracking.registry.overview import list_versions

from ..helpers.registry_answers import Registry
from .mutations import changed_json, deep_json, fuzz, json_values, one_input

TAG = "reid_tune.history"
CHANGE = {"version": 2, "reason": "by hand", "is_rollback": False}
TEXTS = st.one_of(
    changed_json(CHANGE).map(json.dumps),
    json_values.map(json.dumps),
    deep_json,
    st.text(max_size=9),
    st.sampled_from(["0.5", "nan", "inf", "1e999", "50 %", "0,5", "", "9" * 5000]),
)
KEYS = st.one_of(
    st.sampled_from(
        [f"{TAG}.champion.1700000000000", f"{TAG}.champion.x", f"{TAG}.champion.", f"{TAG}.", f"{TAG}.a.1"]
    ),
    st.sampled_from([f"{TAG}.champion.-1", f"{TAG}.champion.{'9' * 5000}", "test/mAP", "test/Rank-1", "sweep"]),
    st.text(max_size=5).map(lambda text: f"{TAG}.champion.{text}"),
)
TAGS = st.dictionaries(KEYS, TEXTS, max_size=3)


@fuzz(80)
@given(
    tags=TAGS, version_tags=TAGS, aliases=st.dictionaries(st.sampled_from(["champion", "a"]), st.sampled_from("123"))
)
def test_tags_that_others_have_changed(
    monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], version_tags: dict[str, str], aliases: dict[str, str]
) -> None:
    registry = Registry(tags, version_tags, aliases)
    monkeypatch.setattr(overview, "open_registry", lambda uri: registry)
    with one_input(errors=()):
        assert len(json.dumps(list_versions("sqlite:///m.db"), allow_nan=False)) > 100
    with one_input("m", errors=(InputError,)):
        histories: Any = alias_histories(registry, "m")  # type: ignore[arg-type]
        assert all(isinstance(number, int) for changes in histories.values() for number in alias_holders(changes))
        move_alias(registry, "champion", "champion", 1, "by hand")  # type: ignore[arg-type]
        assert registry.model.aliases["champion"] == "1"


DIFFERENCE = {"mean": 0.1, "low": 0.0, "high": 0.2, "repeats": 3}
COMPARISON = {"against": 1, "is_accepted": False, "reason": "worse", "difference": DIFFERENCE}


@fuzz(80)
@given(text=changed_json(COMPARISON).map(json.dumps) | TEXTS)
def test_the_tag_of_a_comparison(text: str) -> None:
    with one_input("reid_tune.comparison", errors=(InputError,)):
        assert parse_verdict("m", {COMPARISON_TAG: text}, COMPARISON_TAG)
