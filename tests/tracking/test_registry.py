import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tracking.champion_comparison import Verdict, comparison_count, explain_comparisons
from reid_tune.tracking.registry.register import RegisteredVersion
from reid_tune.tracking.registry.resolve import resolve

from ..helpers.registered_models import WEIGHT, compared, comparisons, holders, put, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_files(tmp_path_factory.mktemp("files"))


def test_a_version_serves_and_holds_every_file_as_it_was(
    store: str, connection: Any, files: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    assert put(store, files, "round trip", "registered", start=1_700_000_000_000) == RegisteredVersion(1, "champion")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    model = mlflow.pyfunc.load_model("models:/round trip@champion")
    (image_input,) = model.metadata.signature.inputs
    assert (image_input.shape, image_input.type) == ((-1, 3, 8, 4), np.dtype("float32"))
    images = np.random.default_rng(1).random((7, 3, 8, 4), np.float32)
    np.testing.assert_allclose(model.predict(images)["fc_pred"], images.reshape(7, -1) @ WEIGHT, rtol=1e-4, atol=1e-5)
    folder = resolve("models:/round trip@champion", store)
    for example in (model.input_example, mlflow.models.Model.load(str(folder)).load_input_example(str(folder))):
        assert (example.shape, example.dtype) == ((1, 3, 8, 4), np.float32)
        assert model.predict(example)["fc_pred"].shape == (1, 5)
    for name, path in files.items():
        assert (folder / name).read_bytes() == path.read_bytes()
    version = connection.get_model_version("round trip", "1")
    assert (version.description, version.tags["test/mAP"]) == ("best", "0.9")
    run = connection.get_run(version.run_id)
    assert (run.data.tags["reid_tune.sweep"], run.info.start_time) == ("uid-registered", 1_700_000_000_000)


def test_the_first_is_champion_the_next_challenger_and_nothing_is_registered_twice(
    store: str, connection: Any, files: Mapping[str, Path]
) -> None:
    results = [put(store, files, "aliases", f"sweep-{number}") for number in range(3)]
    assert [(result.version, result.alias, result.verdict.against) for result in results] == [
        (1, "champion", None),
        (2, "challenger", 1),
        (3, "challenger", 1),
    ]
    assert results[2].verdict.reason == (
        "version 1 has the alias, but the sweep compared its winner with no version: repeat the sweep with --from "
        "confirm"
    )
    assert [put(store, files, "aliases", f"sweep-{number}") for number in range(3)] == results
    aliases = connection.get_registered_model("aliases").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1, "challenger": 3}
    assert put(store, files, "aliases", "sweep-4", set_alias="best") == RegisteredVersion(4, "best")


def test_a_registration_cut_short_is_completed(store: str, connection: Any, files: Mapping[str, Path]) -> None:
    put(store, files, "cut", "cut")
    connection.delete_model_version_tag("cut", "1", "reid_tune.alias")
    assert put(store, files, "cut", "cut") == RegisteredVersion(1, "champion")
    connection.delete_model_version_tag("cut", "1", "reid_tune.alias")
    connection.delete_registered_model_alias("cut", "champion")
    assert put(store, files, "cut", "cut") == RegisteredVersion(1, "champion")
    assert resolve("models:/cut@champion", store) == resolve("models:/cut/1", store)


def test_the_alias_moves_to_a_version_that_was_compared_with_its_holder_and_accepted(
    store: str, connection: Any, files: Mapping[str, Path]
) -> None:
    def sweep(number: int, comparison: Verdict | None) -> RegisteredVersion:
        return put(store, files, "gate", f"g{number}", comparison=comparison)

    verdicts = [*comparisons(0.1, 0.05, 0.2), compared(0.9, 1)]
    first, worse, better, stale = (sweep(number, verdict) for number, verdict in enumerate(verdicts))
    assert first == RegisteredVersion(1, "champion")
    assert worse == RegisteredVersion(2, "challenger", verdicts[1] or Verdict())
    assert better == RegisteredVersion(3, "champion", verdicts[2] or Verdict())
    assert (stale.version, stale.alias) == (4, "challenger") and "with version 1: repeat" in stale.verdict.reason
    assert holders(connection, "gate") == {"champion": 3, "challenger": 4}
    assert [sweep(number, verdict) for number, verdict in enumerate(verdicts)] == [first, worse, better, stale]
    assert holders(connection, "gate") == {"champion": 3, "challenger": 4}
    counts = [comparison_count(connection.get_model_version("gate", str(number)).tags) for number in (1, 2, 3, 4)]
    assert counts == [3, 0, 0, 0]
    again = sweep(3, compared(0.1, 3))
    assert (again.version, again.alias) == (4, "champion"), "its sweep has done confirm again"
    assert comparison_count(connection.get_model_version("gate", "3").tags) == 1


def test_the_number_of_comparisons_is_explained() -> None:
    assert explain_comparisons(3, 0) == ""
    chance = 100 * (1 - 0.975**8)
    assert explain_comparisons(3, 8) == (
        "8 versions compared with version 3 so far: if none was better, the chance that at least one would be promoted "
        f"by luck is up to {chance:.0f} %."
    )


def test_the_alias_of_a_deleted_version_is_free(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    put(store, files, "deleted", "deleted-1")
    connection.delete_model_version("deleted", "1")
    assert put(store, files, "deleted", "deleted-2") == RegisteredVersion(2, "champion")


def test_a_registration_cut_short_after_the_move_keeps_its_reason(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    put(store, files, "moved", "moved-1")
    expected = put(store, files, "moved", "moved-2", comparison=compared(0.1, 1))
    assert expected.alias == "champion" and expected.verdict.is_accepted
    connection.delete_model_version_tag("moved", "2", "reid_tune.alias")
    assert put(store, files, "moved", "moved-2", comparison=compared(0.1, 1)) == expected
    connection.delete_model_version_tag("moved", "2", "reid_tune.alias")
    connection.set_registered_model_alias("moved", "champion", "1")
    connection.delete_model_version_tag("moved", "2", "reid_tune.gate")
    assert put(store, files, "moved", "moved-2", comparison=compared(0.1, 1)) == expected


def test_a_sweep_that_is_done_again_registers_its_new_winner_in_addition_to_the_old_one(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    first = put(store, files, "again", "again")
    model = onnx.load(files["model.onnx"])
    model.producer_name = "another winner"
    onnx.save(model, tmp_path / "other.onnx")
    other = {**files, "model.onnx": tmp_path / "other.onnx"}
    second = put(store, other, "again", "again", comparison=compared(0.1, 1))
    assert (first.version, second.version, second.alias, second.verdict.against) == (1, 2, "champion", 1)
    for number, source in ((1, files["model.onnx"]), (2, tmp_path / "other.onnx")):
        assert (resolve(f"models:/again/{number}", store) / "model.onnx").read_bytes() == source.read_bytes()
    assert put(store, files, "again", "again") == first
    assert holders(connection, "again") == {"champion": 2}


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "latest", "v2", "x" * 129])
def test_aliases_that_mlflow_does_not_take_are_refused(alias: str, store: str, files: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="cannot be an alias"):
        put(store, files, "odd", "odd", set_alias=alias)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a@b", "it's", "..", "x" * 129])
def test_names_that_an_address_cannot_hold_are_refused(name: str, store: str, files: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="cannot name a model"):
        put(store, files, name, "names")


def test_files_that_cannot_be_registered_are_named(store: str, files: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file .*gone.pth"):
        put(store, {**files, "checkpoint.pth": tmp_path / "gone.pth"}, "files", "files")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InputError, match="text.onnx: it is not an ONNX file"):
        put(store, {**files, "model.onnx": tmp_path / "text.onnx"}, "files", "files")


def test_a_run_address_is_a_file_or_a_folder(store: str, connection: Any, files: Mapping[str, Path]) -> None:
    put(store, files, "runs", "runs")
    run = connection.get_model_version("runs", "1").run_id
    name = resolve("models:/runs/1", store).name
    assert resolve(f"runs:/{run}/{name}/spec.yaml", store).read_text() == "a: 1\n"
    assert resolve(f"runs:/{run}/{name}", store) == resolve("models:/runs/1", store)
    with pytest.raises(InputError, match=f"has no {name}/best.pth; in this folder it has .*{name}/checkpoint.pth"):
        resolve(f"runs:/{run}/{name}/best.pth", store)
    with pytest.raises(InputError, match=rf"no run 0123abc in .*; the latest runs are .*{run} \(runs\)"):
        resolve("runs:/0123abc/model", store)


def test_what_is_unknown_is_answered_with_what_exists(store: str, files: Mapping[str, Path]) -> None:
    put(store, files, "known", "known")
    with pytest.raises(InputError, match="no model other in .*; it has .*known"):
        resolve("models:/other@champion", store)
    with pytest.raises(InputError, match="no model other in .*; it has .*known"):
        resolve("models:/other/1", store)
    with pytest.raises(InputError, match="no alias best; it has champion"):
        resolve("models:/known@best", store)
    with pytest.raises(InputError, match="no version 7; it has 1"):
        resolve("models:/known/7", store)


def test_a_version_without_its_files_is_said_to_be(store: str, files: Mapping[str, Path]) -> None:
    put(store, files, "emptied", "emptied")
    shutil.rmtree(resolve("models:/emptied/1", store))
    with pytest.raises(InputError, match="models:/emptied/1 is registered, but its files are missing in .*/model"):
        resolve("models:/emptied/1", store)


@pytest.mark.parametrize("text", ["models:/known", "models:/known@", "models:/@x", "runs:/abc", "runs:/a/../../b", "x"])
def test_other_addresses_are_refused(text: str, store: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        resolve(text, store)


def test_a_store_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no MLflow store"):
        resolve("models:/known@champion", f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(InfrastructureError, match="http://127.0.0.1:9 does not answer"):
        resolve("models:/known@champion", "http://127.0.0.1:9")
