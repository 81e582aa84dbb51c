import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tracking.champion_comparison import CONFIRM_FILE, Verdict
from reid_tune.tracking.registry.register import RegisteredVersion
from reid_tune.tracking.registry.resolve import resolve

from ..helpers.registered_models import WEIGHT, confirmed, holders, put, write_files


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
    expected = [
        RegisteredVersion(1, "champion"),
        RegisteredVersion(2, "challenger", Verdict(1)),
        RegisteredVersion(3, "challenger", Verdict(1)),
    ]
    assert [put(store, files, "aliases", f"sweep-{number}") for number in range(3)] == expected
    assert [put(store, files, "aliases", f"sweep-{number}") for number in range(3)] == expected
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


def test_the_alias_moves_to_a_version_that_beats_its_holder_over_common_splits(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    def sweep(name: str, gain: float, splits: str = "abc") -> RegisteredVersion:
        return put(store, {**files, **confirmed(tmp_path, gain, splits)}, "gate", name)

    first, worse, better = sweep("g1", 0.1), sweep("g2", 0.05), sweep("g3", 0.2, "bcd")
    assert first == RegisteredVersion(1, "champion") and first.verdict.is_accepted
    lost, gained = worse.verdict.difference, better.verdict.difference
    assert (worse.alias, worse.verdict.incumbent, worse.verdict.is_accepted) == (
        "challenger",
        1,
        False,
    ) and lost is not None
    assert lost.mean == pytest.approx(-0.05) and lost.repeats == 3
    assert (better.version, better.alias, better.verdict.incumbent) == (3, "champion", 1) and gained is not None
    assert gained.mean == pytest.approx(0.1) and gained.repeats == 2
    assert better.verdict.reason == "+10.0 points of mAP [+10.0, +10.0] against version 1, over 2 common split(s)"
    assert holders(connection, "gate") == {"champion": 3, "challenger": 2}
    elsewhere = sweep("g4", 0.9, "xyz")
    assert (
        elsewhere == RegisteredVersion(4, "challenger", Verdict(3)) and "no paired results" in elsewhere.verdict.reason
    )
    assert [sweep("g1", 0.1), sweep("g2", 0.05), sweep("g3", 0.2, "bcd")] == [first, worse, better]
    assert holders(connection, "gate") == {"champion": 3, "challenger": 4}


def test_without_the_results_of_both_the_alias_stays(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    with_results = {**files, **confirmed(tmp_path, 0.1)}
    better = {**files, **confirmed(tmp_path, 0.2)}
    put(store, files, "bare", "bare-1")
    assert put(store, better, "bare", "bare-2") == RegisteredVersion(2, "challenger", Verdict(1))
    put(store, with_results, "paired", "paired-1")
    assert put(store, files, "paired", "paired-2") == RegisteredVersion(2, "challenger", Verdict(1))
    (resolve("models:/paired/1", store) / CONFIRM_FILE).write_bytes(b"damaged")
    assert put(store, better, "paired", "paired-3") == RegisteredVersion(3, "challenger", Verdict(1))
    shutil.rmtree(resolve("models:/paired/1", store))
    assert put(store, better, "paired", "paired-4") == RegisteredVersion(4, "challenger", Verdict(1))
    assert holders(connection, "paired") == {"champion": 1, "challenger": 4}


def test_the_alias_of_a_deleted_version_is_free(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    put(store, {**files, **confirmed(tmp_path, 0.9)}, "deleted", "deleted-1")
    connection.delete_model_version("deleted", "1")
    assert put(store, {**files, **confirmed(tmp_path, 0.1)}, "deleted", "deleted-2") == RegisteredVersion(2, "champion")


def test_a_registration_cut_short_after_the_move_keeps_its_reason(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    put(store, {**files, **confirmed(tmp_path, 0.1)}, "moved", "moved-1")
    better = {**files, **confirmed(tmp_path, 0.2)}
    expected = put(store, better, "moved", "moved-2")
    assert expected.alias == "champion" and expected.verdict.is_accepted
    connection.delete_model_version_tag("moved", "2", "reid_tune.alias")
    assert put(store, better, "moved", "moved-2") == expected
    connection.delete_model_version_tag("moved", "2", "reid_tune.alias")
    connection.set_registered_model_alias("moved", "champion", "1")
    connection.delete_model_version_tag("moved", "2", "reid_tune.gate")
    assert put(store, better, "moved", "moved-2") == expected


def test_a_sweep_that_is_done_again_registers_its_new_winner_in_addition_to_the_old_one(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    first = put(store, {**files, **confirmed(tmp_path, 0.1)}, "again", "again")
    model = onnx.load(files["model.onnx"])
    model.producer_name = "another winner"
    onnx.save(model, tmp_path / "other.onnx")
    other = {**files, **confirmed(tmp_path, 0.2), "model.onnx": tmp_path / "other.onnx"}
    second = put(store, other, "again", "again")
    assert (first.version, second.version, second.alias, second.verdict.incumbent) == (1, 2, "champion", 1)
    for number, source in ((1, files["model.onnx"]), (2, tmp_path / "other.onnx")):
        assert (resolve(f"models:/again/{number}", store) / "model.onnx").read_bytes() == source.read_bytes()
    assert put(store, {**files, **confirmed(tmp_path, 0.1)}, "again", "again") == first
    assert holders(connection, "again") == {"champion": 2}


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "latest", "v2", "x" * 129])
def test_aliases_that_mlflow_does_not_take_are_refused(alias: str, store: str, files: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="cannot be an alias"):
        put(store, files, "odd", "odd", set_alias=alias)


def test_damaged_results_are_refused_before_anything_is_registered(
    store: str, connection: Any, files: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.npz").write_text("no results")
    with pytest.raises(InputError, match="text.npz is not an .npz file"):
        put(store, {**files, CONFIRM_FILE: tmp_path / "text.npz"}, "refused", "refused")
    assert not connection.search_registered_models("name = 'refused'")


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
