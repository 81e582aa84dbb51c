"""References to pretrained weights in a search space: each is copied once, and a resume has the same copies."""

from pathlib import Path

import pytest

from reid_tune.journal.event_log import EVENTS, read_header
from reid_tune.journal.journal import Journal
from reid_tune.search.warm_start import parse_user_point
from reid_tune.search_space.load import load_sweep
from reid_tune.search_space.recorded import load_recorded_sweep
from reid_tune.sweep import pretrained
from reid_tune.sweep.pretrained import pinned_pretrained_weights
from reid_tune.sweep.resume import load_resumable_state, make_header

from ..helpers.simulated_driver import SPACE, write_sweep

WEIGHTS, PEOPLE, OTHERS = "model.pretrained_model_path", "models:/people@champion", "models:/others@champion"
BUNDLES = [{"name": "people", WEIGHTS: PEOPLE}, {"name": "others", WEIGHTS: OTHERS}, {"name": "none", WEIGHTS: None}]


def test_references_in_a_space_are_copied_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.pth"

    def resolve(reference: str, _: str) -> Path:
        source.write_text(reference)
        return source

    monkeypatch.setattr(pretrained, "resolve_model", resolve)
    sweep = load_sweep(write_sweep(tmp_path, bundle=BUNDLES, space=SPACE))
    with pinned_pretrained_weights(sweep, None) as pinned:
        files = pinned.weights
        assert [Path(file).read_text() for file in files] == [PEOPLE, OTHERS]
        assert dict(zip((PEOPLE, OTHERS), files, strict=True)) == pinned.weights_references
    assert not sweep.folder.exists(), "a sweep that did not begin leaves nothing"

    with pinned_pretrained_weights(sweep, None) as pinned, Journal(sweep.folder) as journal:
        journal.emit(make_header(pinned))
        files = pinned.weights
    monkeypatch.setattr(pretrained, "resolve_model", None)
    with pinned_pretrained_weights(sweep, read_header(sweep.folder / EVENTS)) as resumed:
        assert resumed.weights == files and all(map(Path.is_file, map(Path, files)))
        assert load_resumable_state(resumed, "auto").header.weights == pinned.weights_references
    recorded = load_recorded_sweep(sweep.folder)
    assert recorded.weights == files
    assert parse_user_point(recorded, {"bundle": "others"}, "enqueue")[WEIGHTS] == files[1]
