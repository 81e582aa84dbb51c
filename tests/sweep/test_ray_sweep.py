"""One short sweep on a real Ray: what a machine without test folders can do."""

from pathlib import Path

from .workbench import Bench


def test_search_needs_no_test_folders_and_keeps_what_failed_apart(tmp_path: Path) -> None:
    usual, absurd = [0.226] * 3, [1e-38] * 3  # the second overflows in the first convolution
    space = {"dataset.pixel_std": {"choice": [usual, absurd]}, "train.optim.name": {"choice": ["SGD"]}}
    bench = Bench(tmp_path, budget={"trials": 3}, space=space, search={"sampler": "random", "seed": 3})
    (tmp_path / "data" / "query").rename(tmp_path / "elsewhere")

    refused = bench.run("sweep", "sweep.yaml", status=2)
    assert "the stage test needs its folders" in refused.stderr
    assert not (tmp_path / "runs").exists()

    overrides = ("train.num_epochs=2", "train.optim.lr_steps=[2]")
    done = bench.run("sweep", "sweep.yaml", *overrides, "--until", "search")
    assert "3 trials" in done.stdout
    trials = bench.report()["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    drawn = {trial["number"]: trial["parameters"].get("dataset.pixel_std") for trial in trials}
    assert usual in drawn.values() and absurd in drawn.values(), "the seed is chosen so that both are drawn"
    for trial in trials:
        if drawn[trial["number"]] == absurd:
            assert trial["state"] == "failed"
            assert "the loss is nan in epoch 1" in trial["reason"]
        else:
            assert trial["state"] == "finished" and trial["epoch"] == 2

    again = bench.run("sweep", "sweep.yaml", *overrides, "--until", "search", status=2)
    assert "--resume auto" in again.stderr
    other = bench.run("sweep", "sweep.yaml", "train.num_epochs=3", "--until", "search", "--resume", "auto", status=2)
    assert "train.num_epochs: 2 there, 3 now" in other.stderr
