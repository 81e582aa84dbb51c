from pathlib import Path

import pytest
import timm
import torch

from reid_tune.errors import InputError
from reid_tune.journal.checksum import add_checksum, read_checked
from reid_tune.journal.events import RunEnded, RunSuggested, StageStarted
from reid_tune.journal.journal import Journal
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.requests import REQUESTS, pending_requests, remove_request, submit_request
from reid_tune.journal.stages import STAGES
from reid_tune.search_space.recorded import load_recorded_sweep
from reid_tune.storage.object_store import LocalStore
from reid_tune.sweep import pretrained
from reid_tune.sweep.requests import ask_to_enqueue, ask_to_stop
from reid_tune.sweep.resume import stages_to_redo

from ..helpers.events import sweep_header
from ..helpers.finished_sweep import simulate
from ..helpers.simulated_driver import make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep in its search, whose trial 4 runs and whose driver has ended."""
    folder = simulate(tmp_path, trials=4, until="preflight").folder
    with Journal(folder) as journal:
        journal.emit(StageStarted(stage="search"))
        for number in (0, 1):
            journal.emit(RunSuggested(run=f"trials/{number:04d}", parameters={}))
        journal.emit(RunEnded(run="trials/0001", state="stopped", epoch=0))
        journal.emit(RunSuggested(run="trials/0004", parameters={"train.optim.base_lr": 1e-3}))
    return folder


def test_requests_come_in_order_of_time_and_stay_until_they_are_done(tmp_path: Path) -> None:
    assert pending_requests(tmp_path) == []
    submit_request(LocalStore(tmp_path), "stop", "trials/0007")
    submit_request(LocalStore(tmp_path), "enqueue", {"train.optim.base_lr": 0.1})
    submit_request(LocalStore(tmp_path), "stop", "trials/0002")
    found = pending_requests(tmp_path)
    assert [(request.kind, request.run or request.parameters) for request in found] == [
        ("stop", "trials/0007"),
        ("enqueue", {"train.optim.base_lr": 0.1}),
        ("stop", "trials/0002"),
    ]
    remove_request(found[0])
    remove_request(found[0])
    assert pending_requests(tmp_path) == found[1:] and len({request.name for request in found}) == 3


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"[1]", b"{}", b'{"kind":"stop","content":"trials/0007"}'),
        add_checksum({"kind": "stop", "content": 7}),
        add_checksum({"kind": "burn", "content": ""}),
        add_checksum({"kind": "stop", "content": "trials/0007"}).replace(b"7", b"6", 1),
    ],
)
def test_what_is_no_request_is_put_aside_and_named(tmp_path: Path, content: bytes) -> None:
    submit_request(LocalStore(tmp_path), "stop", "trials/0001")
    bad = tmp_path / REQUESTS / "0001.json"
    bad.write_bytes(content)
    warnings: list[str] = []
    assert [request.run for request in pending_requests(tmp_path, warnings.append)] == ["trials/0001"]
    assert warnings == [f"{bad} is damaged or not a request, and was renamed to 0001.damaged: give the command again."]
    assert bad.with_suffix(".damaged").read_bytes() == content
    assert len(pending_requests(tmp_path, warnings.append)) == 1 and len(warnings) == 1


def test_a_running_trial_can_be_stopped(folder: Path) -> None:
    sentence = ask_to_stop(folder.name, "trials/0004", str(folder.parent))
    assert sentence == "no driver is running: trial 4 will be stopped when the sweep is resumed"
    assert [request.run for request in pending_requests(folder)] == ["trials/0004"]


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        ("trials/0000", "never stopped"),
        ("trials/0001", "trial 1 of simulated has ended already: it is stopped"),
        ("trials/0009", "no trials/0009; its trials are 0 to 4"),
        ("confirm/0001-2", "only trials can be stopped: write simulated/7"),
        ("", "only trials can be stopped"),
    ],
)
def test_nothing_else_can_be_stopped(folder: Path, run: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        ask_to_stop(folder.name, run, str(folder.parent))
    assert not (folder / REQUESTS).exists()


def test_the_driver_of_another_host_will_see_a_request(tmp_path: Path) -> None:
    folder = simulate(tmp_path, trials=4, until="preflight", host="far").folder
    with Journal(folder) as journal:
        journal.emit(StageStarted(stage="search"))
        journal.emit(RunSuggested(run="trials/0001", parameters={}))
    sentence = ask_to_stop(folder.name, "trials/0001", str(folder.parent))
    assert sentence.startswith("trial 1 will be stopped, by the driver on far or, ")


def test_values_of_the_space_can_be_enqueued(folder: Path) -> None:
    sentence = ask_to_enqueue(folder.name, ["train.optim.base_lr=0.003", "train.optim.name=AdamW"], str(folder.parent))
    assert (
        sentence
        == "no driver is running: the next trial that starts will have these parameters when the sweep is resumed"
    )
    (request,) = pending_requests(folder)
    assert request.parameters is not None
    assert request.parameters["train.optim.base_lr"] == 0.003 and request.parameters["train.optim.name"] == "AdamW"


@pytest.mark.parametrize("pair", ["train.optim.nme=SGD", "model.feat_dim=64", "train.optim.base_lr=x", "base_lr"])
def test_what_the_space_does_not_have_cannot_be_enqueued(folder: Path, pair: str) -> None:
    with pytest.raises(InputError, match=pair.split("=")[0]):
        ask_to_enqueue(folder.name, [pair], str(folder.parent))
    with pytest.raises(InputError, match="at least one"):
        ask_to_enqueue(folder.name, [], str(folder.parent))
    assert not (folder / REQUESTS).exists()


def test_a_request_after_the_search_opens_it_again(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=3)
    state, _ = read_sweep(sweep.folder)
    assert stages_to_redo(sweep, state, None) == ()
    said = ask_to_enqueue(sweep.folder.name, ["train.optim.base_lr=0.003"], str(sweep.folder.parent))
    assert said.startswith("the search is over: when the sweep is resumed, it continues with this trial")
    assert stages_to_redo(sweep, state, None) == STAGES[1:]


def test_a_network_that_cannot_be_built_is_refused_at_once(tmp_path: Path) -> None:
    space = {"model.backbone": {"choice": ["resnet18", "resnet34"]}}
    sweep = make_sweep(tmp_path, space=space)
    with Journal(sweep.folder) as journal:
        content = {"sweep": sweep.file.model_dump(mode="json"), "spec": sweep.experiment.parameters()}
        journal.emit(sweep_header(name="simulated", uid="uid", lock=None, tracking_uri="", **content))
    with pytest.raises(InputError, match="enqueue: model.backbone = 'resnet99'"):
        ask_to_enqueue(sweep.folder.name, ["model.backbone=resnet99"], str(sweep.folder.parent))
    assert not pending_requests(sweep.folder)


WEIGHTS, PEOPLE = "model.pretrained_model_path", "models:/people@champion"


@pytest.fixture
def with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that chooses between two files; a store whose model `people` is a third one, for the same network."""
    files = [tmp_path / f"{name}.pth" for name in "abc"]
    for file in files:
        torch.save(timm.create_model("resnet18").state_dict(), file)
    monkeypatch.setattr(pretrained, "resolve_model", lambda *_: files[2])
    space = {WEIGHTS: {"choice": [str(file) for file in files[:2]]}}
    model = {"backbone": "resnet18", "input_height": 32, "input_width": 16}
    sweep = make_sweep(tmp_path, {"model": model}, space=space)
    with Journal(sweep.folder) as journal:
        content = {"sweep": sweep.file.model_dump(mode="json"), "spec": sweep.experiment.parameters()}
        journal.emit(sweep_header(name="simulated", uid="uid", lock=None, tracking_uri="", **content))
    return sweep.folder


def test_a_trial_of_a_user_keeps_the_weights_that_its_reference_named(with_weights: Path, tmp_path: Path) -> None:
    content = (tmp_path / "c.pth").read_bytes()
    ask_to_enqueue(with_weights.name, [f"{WEIGHTS}={PEOPLE}"], str(with_weights.parent))
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "c.pth")
    (request,) = pending_requests(with_weights)
    assert request.parameters and Path(request.parameters[WEIGHTS]).parent == with_weights / "pretrained"
    assert Path(request.parameters[WEIGHTS]).read_bytes() == content != (tmp_path / "c.pth").read_bytes()


def test_weights_of_another_network_are_refused_by_their_reference(with_weights: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "c.pth")
    with pytest.raises(InputError, match=f"^enqueue: {WEIGHTS} = {PEOPLE}: nothing in it fits"):
        ask_to_enqueue(with_weights.name, [f"{WEIGHTS}={PEOPLE}"], str(with_weights.parent))
    assert list((with_weights / "pretrained").iterdir()) == [] and not pending_requests(with_weights)
    with pytest.raises(InputError, match=f"^enqueue: {WEIGHTS} = .*c.pth: nothing in it fits"):
        ask_to_enqueue(with_weights.name, [f"{WEIGHTS}={tmp_path / 'c.pth'}"], str(with_weights.parent))


def test_a_sweep_can_be_made_from_its_log(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=3, until="preflight")
    found = load_recorded_sweep(sweep.folder)
    assert (found.file, found.experiment, found.folder) == (sweep.file, sweep.experiment, sweep.folder)
    assert found.space.as_entries() == sweep.space.as_entries() and found.space.base == sweep.space.base


def test_a_sweep_of_another_version_is_refused(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=3, until="preflight")
    log = sweep.folder / "events.jsonl"
    header, *rest = log.read_text().splitlines()
    event = read_checked(header.encode())
    event["spec"]["train.colour"] = "red"
    log.write_text("\n".join([add_checksum(event).decode(), *rest]) + "\n")
    with pytest.raises(InputError, match="another version"):
        load_recorded_sweep(sweep.folder)
