"""Tags in a registry that somebody has changed: scores are left out, records are named in one sentence."""

import json
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.tracking.champion_comparison import COMPARISON_TAG, parse_verdict
from reid_tune.tracking.registry import overview
from reid_tune.tracking.registry.alias_changes import alias_histories, move_alias
from reid_tune.tracking.registry.overview import list_versions

from ..helpers.registry_answers import Registry

CHANGE = {"version": 2, "reason": "by hand", "is_rollback": False}
COMPARISON = {"against": 1, "is_accepted": False, "reason": "+10.0 points"}
DIFFERENCE = {"mean": 0.1, "low": 0.0, "high": 0.2, "repeats": 3}
NOT_JSON = ["", "text", "{", "[" * 20_000, "9" * 5000, "null", "1", "[]"]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("0.5", 0.5),
        ("1", 1.0),
        ("", None),
        ("n/a", None),
        ("50 %", None),
        ("0,5", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("9" * 5000, None),
    ],
)
def test_a_score_that_is_not_a_number_is_left_out(
    monkeypatch: pytest.MonkeyPatch, text: str, score: float | None
) -> None:
    monkeypatch.setattr(overview, "open_registry", lambda uri: Registry({}, {"test/mAP": text}, {"champion": "2"}))
    newest, oldest = list_versions("sqlite:///m.db")
    assert newest["mAP"] == oldest["mAP"] == score and newest["Rank-1"] is None and newest["aliases"] == ["champion"]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        *(("1700000000000", text) for text in NOT_JSON),
        *(("1700000000000", json.dumps(CHANGE | {key: value})) for key, value in zip(CHANGE, ["2", 3, 1], strict=True)),
        *(
            ("1700000000000", json.dumps({key: value for key, value in CHANGE.items() if key != left_out}))
            for left_out in CHANGE
        ),
        ("yesterday", json.dumps(CHANGE)),
        ("", json.dumps(CHANGE)),
        ("9" * 5000, json.dumps(CHANGE)),
    ],
)
def test_a_record_of_an_alias_that_was_changed_is_named(moment: str, text: str) -> None:
    registry: Any = Registry({f"reid_tune.history.champion.{moment}": text}, {}, {"champion": "2"})
    for use in (lambda: alias_histories(registry, "m"), lambda: move_alias(registry, "m", "champion", 1, "by hand")):
        with pytest.raises(
            InputError, match="^the tag 'reid_tune.history.champion.* of the model m has been"
        ) as caught:
            use()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert registry.model.aliases == {"champion": "2"}


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in NOT_JSON),
        json.dumps(COMPARISON | {"against": "first", "difference": DIFFERENCE | {"low": None}}),
        json.dumps(COMPARISON | {"difference": DIFFERENCE | {"mean": "0.1"}}),
        json.dumps(COMPARISON | {"difference": DIFFERENCE | {"more": 1}}),
        json.dumps(COMPARISON | {"difference": {"mean": 0.1}}),
        json.dumps(COMPARISON | {"difference": 0.1}),
        json.dumps(COMPARISON | {"difference": [0.1]}),
    ],
)
def test_a_comparison_that_was_changed_is_named(text: str) -> None:
    with pytest.raises(InputError, match="^the tag reid_tune.comparison of .* m has been changed, .* delete it.$"):
        parse_verdict("m", {COMPARISON_TAG: text}, COMPARISON_TAG)


def test_records_that_reid_tune_has_written_are_read() -> None:
    registry: Any = Registry({}, {}, {})
    for version in (1, 2):
        move_alias(registry, "m", "champion", version, "by hand")
    assert [change.version for change in alias_histories(registry, "m")["champion"]] == [1, 2]
    verdict = parse_verdict("m", {COMPARISON_TAG: json.dumps(COMPARISON | {"difference": DIFFERENCE})}, COMPARISON_TAG)
    assert not verdict.is_accepted and verdict.reason.startswith("+10.0 points")
