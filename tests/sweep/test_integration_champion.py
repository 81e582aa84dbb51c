"""Two sweeps on a real Ray into one registry, the second with more data: the recipe of the first is a contestant."""

import json
from pathlib import Path

import pytest

from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ChampionRead

from ..helpers.cli_sweep import Bench

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

HALF = "dataset.validation_fraction=0.5"  # so that the gallery of each split has several of the few identities


def test_a_later_sweep_trains_the_recipe_of_the_champion_on_its_own_data(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 2}, confirm={"candidates": 1, "repeats": 2})
    images = sorted((tmp_path / "data" / "bounding_box_train").iterdir())
    identities = sorted({image.name.split("_")[0] for image in images})
    held_back = [image for image in images if image.name.split("_")[0] in identities[-2:]]
    (tmp_path / "later").mkdir()
    for image in held_back:
        image.rename(tmp_path / "later" / image.name)
    # A recipe that no trial of the second sweep has.
    bench.run("sweep", "sweep.yaml", HALF, "train.optim.weight_decay=0.001")
    assert bench.report()["registered"]["alias"] == "champion" and bench.report()["confirm"]["champion"] is None
    for image in held_back:
        (tmp_path / "later" / image.name).rename(image)

    plan = json.loads(
        bench.run("sweep", "sweep.yaml", HALF, "sweep.name=second", "--dry-run", "--format", "json").stdout
    )
    assert plan["stages"]["confirm"]["runs"] == 3 * 2
    bench.run("sweep", "sweep.yaml", HALF, "sweep.name=second")
    report = json.loads(bench.run("report", "second", "--format", "json").stdout)
    events = read_events(tmp_path / "runs" / "second" / "events.jsonl")
    champions = [event for event in events if isinstance(event, ChampionRead)]
    assert [champion.version for champion in champions] == [1] and champions[0].parameters
    check, registered = report["confirm"]["champion"], report["registered"]
    assert check["runs"] == [run.replace("0000", "v1") for run in report["confirm"]["trials"][0]["runs"]]
    verdict = check["verdict"]
    assert verdict["against"] == 1 and verdict["difference"]["repeats"] == 2
    assert (registered["version"], registered["against"], registered["reason"]) == (2, 1, verdict["reason"])
    assert registered["alias"] == ("champion" if verdict["is_accepted"] else "challenger")
    shown = bench.run("registry", "show", "small/1").stdout
    assert "1 version compared with version 1 so far" in shown
    forced = bench.run("registry", "promote", "small", "2", "--force", "more data").stdout
    assert verdict["is_accepted"] or ": more data (the check: " in forced
