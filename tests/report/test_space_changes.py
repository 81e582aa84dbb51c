from pathlib import Path

import pytest

from reid_tune.journal.event_log import EVENTS, EventLog, read_events
from reid_tune.journal.events import RunSuggested, SpaceChanged
from reid_tune.journal.state import replay
from reid_tune.report.html import write_page
from reid_tune.report.markdown import SweepPage
from reid_tune.report.sentences import space_change_sentences

from ..helpers.events import sweep_header
from ..helpers.finished_sweep import simulate

pytestmark = pytest.mark.usefixtures("no_fsync")
RATE, MARGIN = "train.optim.base_lr", "train.optim.triplet_loss_margin"
NARROW, WIDE = {"loguniform": [1e-4, 1e-3]}, {"loguniform": [1e-4, 1e-2]}


def test_each_change_has_its_time_and_the_ranges_that_differ(tmp_path: Path) -> None:
    first = {RATE: NARROW, MARGIN: {"uniform": [0.1, 0.6]}}
    second = first | {RATE: WIDE}
    with EventLog(tmp_path / EVENTS) as log:
        log.append(sweep_header(sweep={"space": first}))
        log.append(RunSuggested(run="trials/0000", parameters={}))
        log.append(SpaceChanged(space=second, weights={}, pretrained={}))
        log.append(RunSuggested(run="trials/0001", parameters={RATE: 1e-2}))
        log.append(SpaceChanged(space=second | {"dataset.re_prob": {"choice": [0.0, 0.5]}}, weights={}, pretrained={}))
    wider, longer = space_change_sentences(replay(read_events(tmp_path / EVENTS)))
    assert wider.startswith("the space was changed after 1 trial (20") and wider.endswith(
        " UTC): train.optim.base_lr {loguniform: [0.0001, 0.01]} instead of {loguniform: [0.0001, 0.001]}"
    )
    assert longer.startswith("the space was changed after 2 trials (")
    assert longer.endswith(" UTC): dataset.re_prob {choice: [0.0, 0.5]} is new")


def test_the_page_and_the_description_in_mlflow_show_it(tmp_path: Path) -> None:
    folder = simulate(tmp_path, trials=3, until="search").folder
    with EventLog(folder / EVENTS) as log:
        log.append(SpaceChanged(space={RATE: WIDE | {"when": {MARGIN: 0.3}}}, weights={}, pretrained={}))
    assert "The space was changed after 3 trials (" in write_page(folder).read_text()
    description = SweepPage()
    for event in read_events(folder / EVENTS):
        description.apply(event)
    assert "the space was changed after 3 trials (" in description.markdown({})
