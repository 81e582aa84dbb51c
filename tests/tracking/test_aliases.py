import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tracking.registry.alias_changes import alias_histories, move_alias
from reid_tune.tracking.registry.aliases import promote, rollback
from reid_tune.tracking.registry.overview import list_versions, show_version

from ..helpers.registered_models import comparisons, holders, put, write_files

Versions = Callable[..., str]


@pytest.fixture
def versions(store: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Register a version for each gain in mAP, compared with the champion as sweeps do; the name of the model."""
    files, model = write_files(tmp_path_factory.mktemp("files")), re.sub(r"\W", "-", request.node.name)

    def make(*gains: float) -> str:
        for number, comparison in enumerate(comparisons(*gains)):
            put(store, files, model, f"{model}-{number}", comparison=comparison)
        return model

    return make


def version_history(connection: Any, model: str, alias: str = "champion") -> list[int]:
    return [change.version for change in alias_histories(connection, model)[alias]]


def test_a_better_version_is_promoted_and_is_not_the_challenger_any_more(
    store: str, connection: Any, versions: Versions
) -> None:
    model = versions(0.1, 0.05, 0.2)
    move_alias(connection, model, "champion", 1, "by hand")
    move_alias(connection, model, "challenger", 3, "by hand")
    moved = promote(store, model, 3)
    assert str(moved) == f"models:/{model}@champion is version 3 now: +10.0 points of mAP against version 1"
    assert holders(connection, model) == {"champion": 3}
    assert promote(store, model, 3).reason == "it had the alias already"
    assert promote(store, model, 2, "staging").reason == "no other version had the alias"
    assert holders(connection, model) == {"champion": 3, "staging": 2}
    assert version_history(connection, model) == [1, 3, 1, 3] and version_history(connection, model, "staging") == [2]


def test_a_version_that_was_compared_with_another_champion_is_refused(store: str, versions: Versions) -> None:
    model = versions(0.1, 0.2, 0.05)
    with pytest.raises(InputError, match="version 2 has the alias, but the sweep compared its winner with no version"):
        promote(store, model, 1)
    assert rollback(store, model).version == 1
    with pytest.raises(InputError, match="version 1 has the alias, but the sweep compared its winner with version 2: "):
        promote(store, model, 3)


def test_a_version_that_is_not_better_is_promoted_by_force_alone(
    store: str, connection: Any, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = versions(0.1, 0.05)
    with pytest.raises(InputError) as caught:
        promote(store, model, 2)
    assert str(caught.value) == (
        f"version 2 of {model} does not become champion: -5.0 points of mAP against version 1; --force REASON does "
        "it anyway."
    )
    with pytest.raises(InputError, match="--force needs a reason, which the registry records: --force REASON"):
        promote(store, model, 2, forced=" ")
    assert holders(connection, model) == {"champion": 1, "challenger": 2}
    monkeypatch.setenv("LOGNAME", "ada")
    reason = "forced by ada: fits the camera (the check: -5.0 points of mAP against version 1)"
    assert promote(store, model, 2, forced="fits the camera").reason == reason
    assert holders(connection, model) == {"champion": 2}
    assert alias_histories(connection, model)["champion"][-1].reason == reason


def test_each_rollback_goes_one_step_back(store: str, connection: Any, versions: Versions) -> None:
    model = versions(0.1, 0.2, 0.3)
    assert holders(connection, model) == {"champion": 3}
    assert [rollback(store, model).version for _ in range(2)] == [2, 1]
    assert holders(connection, model) == {"champion": 1}
    with pytest.raises(InputError, match=f"no other version of {model} .* had the alias champion before; .* 1, 2, 3"):
        rollback(store, model)
    assert promote(store, model, 3, forced="better").version == 3
    assert rollback(store, model).version == 1
    assert version_history(connection, model) == [1, 2, 3, 2, 1, 3, 1]
    assert [change.is_rollback for change in alias_histories(connection, model)["champion"]] == [False] * 3 + [
        True
    ] * 2 + [
        False,
        True,
    ]


def test_a_version_that_was_promoted_again_is_left_for_the_one_in_between(store: str, versions: Versions) -> None:
    model = versions(0.1, 0.2)
    promote(store, model, 1, forced="back")
    assert [rollback(store, model).version for _ in range(2)] == [2, 1]


def test_a_rollback_passes_over_deleted_versions(store: str, connection: Any, versions: Versions) -> None:
    model = versions(0.1, 0.2, 0.3)
    connection.delete_model_version(model, "2")
    assert rollback(store, model).version == 1
    promote(store, model, 3, forced="better")
    connection.delete_model_version(model, "3")
    assert rollback(store, model).reason == "no version had the alias champion any more"
    assert holders(connection, model) == {"champion": 1}


def test_an_alias_that_was_moved_by_other_means_is_taken_as_it_is(
    store: str, connection: Any, versions: Versions
) -> None:
    model = versions(0.1, 0.05, 0.01)
    connection.set_registered_model_alias(model, "champion", "3")
    assert version_history(connection, model) == [1, 3]
    assert promote(store, model, 2, forced="better").version == 2
    assert version_history(connection, model) == [1, 3, 2]
    assert [change.reason for change in alias_histories(connection, model)["champion"]][1] == (
        "moved by other means than reid-tune"
    )
    connection.set_registered_model_alias(model, "champion", "3")
    assert rollback(store, model).version == 1


class Dies(BaseException):
    pass


def test_a_crash_at_any_call_loses_nothing(
    store: str, connection: Any, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = versions(0.1, 0.2)
    reasons = [change.reason for change in alias_histories(connection, model)["champion"]]

    def dying(*_: Any) -> None:
        raise Dies

    for write in ("set_registered_model_tag", "set_registered_model_alias"):
        for move in (lambda: rollback(store, model), lambda: promote(store, model, 2)):
            before = holders(connection, model)["champion"]
            with monkeypatch.context() as patch:
                patch.setattr(f"mlflow.MlflowClient.{write}", dying)
                with pytest.raises(Dies):
                    move()
            assert holders(connection, model)["champion"] == before
            assert move().version == 3 - before
    recorded = [change.reason for change in alias_histories(connection, model)["champion"]]
    assert recorded[:2] == reasons and not [reason for reason in recorded if "other means" in reason]
    assert rollback(store, model).version == 1
    with pytest.raises(InputError, match="no other version"):
        rollback(store, model)


def test_a_registration_that_died_before_the_alias_moved_is_recorded_once(
    store: str, connection: Any, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = versions(0.1)

    def dying(*_: Any) -> None:
        raise Dies

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr("mlflow.MlflowClient.set_registered_model_alias", dying)
        versions(0.1, 0.2)
    assert holders(connection, model) == {"champion": 1}
    versions(0.1, 0.2)
    assert holders(connection, model) == {"champion": 2} and version_history(connection, model) == [1, 2]
    assert rollback(store, model).version == 1


def test_what_is_unknown_is_answered_with_what_exists(store: str, versions: Versions, tmp_path: Path) -> None:
    model = versions(0.1)
    with pytest.raises(InputError, match=f"there is no model other in .*; it has .*{model}"):
        promote(store, "other", 1)
    with pytest.raises(InputError, match="has no version 7; it has 1"):
        promote(store, model, 7)
    with pytest.raises(InputError, match="'a b' cannot be an alias"):
        promote(store, model, 1, "a b")
    with pytest.raises(InputError, match="there is no model other in .*; it has"):
        rollback(store, "other")
    with pytest.raises(InputError, match=f"the model {model} has no alias best; it has champion"):
        rollback(store, model, "best")
    with pytest.raises(InputError, match=f"there is no MLflow store {tmp_path}/mlflow.db; set MLFLOW_TRACKING_URI"):
        rollback(f"sqlite:///{tmp_path}/mlflow.db", model)
    with pytest.raises(InfrastructureError, match="http://127.0.0.1:9 does not answer"):
        promote("http://127.0.0.1:9", model, 1)


def test_a_list_has_the_versions_of_all_models(store: str, versions: Versions) -> None:
    model = versions(0.1, 0.2)
    newest, first = [line for line in list_versions(store) if line["model"] == model]
    assert (newest["version"], newest["aliases"], first["version"], first["aliases"]) == (2, ["champion"], 1, [])
    assert (newest["mAP"], newest["Rank-1"], newest["sweep"]) == (0.9, None, None)
    assert newest["created"] > 1.7e9


@pytest.mark.parametrize(
    ("reference", "version"), [("{}", 2), ("{}@champion", 2), ("{}/1", 1), ("models:/{}@champion", 2)]
)
def test_a_version_is_shown_with_its_files_and_history(
    store: str, versions: Versions, reference: str, version: int
) -> None:
    model = versions(0.1, 0.2)
    details = show_version(store, reference.format(model))
    assert (details["model"], details["version"], details["description"]) == (model, version, "best")
    assert {"model.onnx", "checkpoint.pth", "spec.yaml", "MLmodel", "input_example.json"} <= {*details["files"]}
    first, second = details["history"]["champion"]
    assert (first["version"], second["version"]) == (1, 2) and 0 < second["time"] - first["time"] < 600
    assert abs(details["created"] - first["time"]) < 600
    assert details["comparisons"] == (version == 1)
    assert details["tags"]["test/mAP"] == "0.9" and details["run"] in details["source"]


def test_a_name_alone_is_the_newest_version_where_there_is_no_champion(
    store: str, connection: Any, versions: Versions
) -> None:
    model = versions(0.1, 0.05)
    assert show_version(store, model)["version"] == 1
    connection.delete_registered_model_alias(model, "champion")
    assert show_version(store, model)["version"] == 2
    with pytest.raises(InputError, match=f"the model {model} in .* has no alias champion; it has challenger"):
        show_version(store, f"{model}@champion")
    with pytest.raises(InputError, match="has no version x; it has 1, 2"):
        show_version(store, f"{model}/x")
    for number in ("1", "2"):
        connection.delete_model_version(model, number)
    with pytest.raises(InputError, match=f"the model {model} has no versions"):
        show_version(store, model)
