"""References to pretrained weights in a search space: each is copied once, and a resume has the same copies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.journal import Journal
from reid_tune.search.warm_start import initial_points, parse_user_point
from reid_tune.search_space.load import load_sweep
from reid_tune.search_space.recorded import load_recorded_sweep
from reid_tune.sweep import pretrained
from reid_tune.sweep.pretrained import pinned_pretrained_weights, recorded_weights
from reid_tune.sweep.resume import load_resumable_state, make_header, record_space_change
from reid_tune.sweep.stages.weights_check import load_weights_of, require_same_weights

from ..helpers.simulated_driver import SPACE, write_sweep

WEIGHTS, PEOPLE, OTHERS = "model.pretrained_model_path", "models:/people@champion", "models:/others@champion"
BUNDLES = [{"name": "people", WEIGHTS: PEOPLE}, {"name": "others", WEIGHTS: OTHERS}, {"name": "none", WEIGHTS: None}]


def resolver(folder: Path) -> Callable[[str, str], Path]:
    """A store of models whose weights are the references themselves."""

    def resolve(reference: str, _: str) -> Path:
        source = folder / "source.pth"
        source.write_text(reference)
        return source

    return resolve


def test_references_in_a_space_are_copied_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "resolve_model", resolver(tmp_path))
    sweep = load_sweep(write_sweep(tmp_path, bundle=BUNDLES, space=SPACE))
    with pinned_pretrained_weights(sweep, {}) as pinned:
        files = pinned.weights
        assert [Path(file).read_text() for file in files] == [PEOPLE, OTHERS]
        assert dict(zip((PEOPLE, OTHERS), files, strict=True)) == pinned.weights_references
    assert not sweep.folder.exists(), "a sweep that did not begin leaves nothing"

    with pinned_pretrained_weights(sweep, {}) as pinned, Journal(sweep.folder) as journal:
        journal.emit(make_header(pinned))
        files = pinned.weights
    monkeypatch.setattr(pretrained, "resolve_model", None)
    with pinned_pretrained_weights(sweep, recorded_weights(read_events(sweep.folder / EVENTS))) as resumed:
        assert resumed.weights == files and all(map(Path.is_file, map(Path, files)))
        assert load_resumable_state(resumed, "auto").header.weights == pinned.weights_references
    recorded = load_recorded_sweep(sweep.folder)
    assert recorded.weights == files
    assert parse_user_point(recorded, {"bundle": "others"}, "enqueue")[WEIGHTS] == files[1]


def test_a_reference_of_an_accepted_space_is_copied_once_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "resolve_model", resolver(tmp_path))
    space: dict[str, Any] = SPACE | {WEIGHTS: {"choice": ["", PEOPLE]}}
    sweep = load_sweep(write_sweep(tmp_path, space=space))
    with pinned_pretrained_weights(sweep, {}) as pinned, Journal(sweep.folder) as journal:
        journal.emit(make_header(pinned))
        first = pinned.weights
    wider = load_sweep(write_sweep(tmp_path, space=space | {WEIGHTS: {"choice": ["", PEOPLE, OTHERS]}}))
    log = wider.folder / EVENTS
    with (
        pytest.raises(InputError, match="--accept-space") as refusal,
        pinned_pretrained_weights(wider, recorded_weights(read_events(log))) as pinned,
    ):
        load_resumable_state(pinned, "auto")
    change = f"{WEIGHTS}: {{'choice': ['', '{PEOPLE}']}} there, {{'choice': ['', '{PEOPLE}', '{OTHERS}']}} now"
    assert change in str(refusal.value)
    assert list(map(str, (wider.folder / "pretrained").iterdir())) == first, "a refused space leaves no copy"
    with (
        pinned_pretrained_weights(wider, recorded_weights(read_events(log))) as pinned,
        Journal(sweep.folder) as journal,
    ):
        record_space_change(pinned, journal, {})
        files = pinned.weights
    assert files[:1] == first and [Path(file).read_text() for file in files] == [PEOPLE, OTHERS]
    monkeypatch.setattr(pretrained, "resolve_model", None)
    with pinned_pretrained_weights(wider, recorded_weights(read_events(log))) as resumed:
        assert resumed.weights == files and load_resumable_state(resumed, "auto").header.weights.keys() == {
            PEOPLE,
            OTHERS,
        }


def test_a_start_point_outside_the_space_has_a_copy_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "resolve_model", resolver(tmp_path))
    space: dict[str, Any] = SPACE | {WEIGHTS: {"choice": ["", PEOPLE]}}
    search = {"sampler": "random", "start_from": [{WEIGHTS: OTHERS}, {WEIGHTS: "some.pth"}]}
    sweep = load_sweep(write_sweep(tmp_path, space=space, search=search))
    assert sweep.weights == [PEOPLE, OTHERS, str(Path("some.pth").absolute())]
    with pinned_pretrained_weights(sweep, {}) as pinned, Journal(sweep.folder) as journal:
        journal.emit(make_header(pinned))
        (point, _), _ = initial_points(pinned)
    assert Path(point.parameters[WEIGHTS]).read_text() == OTHERS
    monkeypatch.setattr(pretrained, "resolve_model", None)
    with pinned_pretrained_weights(sweep, recorded_weights(read_events(sweep.folder / EVENTS))) as resumed:
        assert initial_points(resumed)[0][0] == point
        assert load_resumable_state(resumed, "auto").header.weights == pinned.weights_references


def test_an_error_names_the_reference_that_the_user_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "resolve_model", resolver(tmp_path))
    sweep = load_sweep(write_sweep(tmp_path, bundle=BUNDLES, space=SPACE))
    with pytest.raises(InputError) as refusal, pinned_pretrained_weights(sweep, {}) as pinned:
        load_weights_of([with_parameters(pinned.experiment, {WEIGHTS: pinned.weights_references[OTHERS]}, "")])
    assert OTHERS in str(refusal.value) and str(sweep.folder) not in str(refusal.value)
    with pytest.raises(InputError) as refusal, pinned_pretrained_weights(sweep, {}) as pinned:
        file = pinned.weights[0]
        require_same_weights(pinned, {file: "1" * 64}, {file: "2" * 64})
    copy = Path(file).relative_to(sweep.folder)
    assert str(refusal.value).startswith(f"the copy {copy} of {PEOPLE} has changed since the sweep simulated began")


def test_start_points_have_the_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "resolve_model", resolver(tmp_path))
    search = {"sampler": "random", "start_from": [{WEIGHTS: OTHERS}]}
    sweep = load_sweep(write_sweep(tmp_path, bundle=BUNDLES, space=SPACE, search=search))
    with pinned_pretrained_weights(sweep, {}) as pinned:
        (point,), _ = initial_points(pinned)
        assert point.parameters["bundle"] == "others"
        assert point.parameters[WEIGHTS] == pinned.weights_references[OTHERS]
