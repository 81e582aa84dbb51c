"""Register: add the winner as a version of a model, with its files, results and a model card."""

from typing import Any

from reid_tune.config.load import with_parameters
from reid_tune.files import write_atomic
from reid_tune.journal.costs import CostLedger
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ModelRegistered
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.export import onnx_path
from reid_tune.sweep.stages.model_card import model_version_tags, render_model_card
from reid_tune.sweep.stages.refit import find_finalists
from reid_tune.tracking.champion_comparison import Verdict
from reid_tune.tracking.registry.champion import SPEC_FILE
from reid_tune.tracking.store import with_credentials

__all__ = ["register"]


def register(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Register ONNX file, checkpoint and spec. The comparison with the champion in `confirm` decides about the alias.

    Returns:
        Version, alias and reason of the decision, as plain data.

    Raises:
        InfrastructureError: the tracking server is unreachable.
    """
    from reid_tune.tracking.mlflow_names import milliseconds
    from reid_tune.tracking.registry.register import register_version

    winner = find_finalists(journal)["winner"]
    model = onnx_path(sweep, "winner")
    spec = model.with_suffix(".yaml")
    write_atomic(spec, with_parameters(sweep.experiment, winner.parameters, "winner").to_yaml())
    header, check = journal.state.header, journal.state.stages["confirm"]["champion"]
    registered = register_version(
        with_credentials(header.tracking_uri),
        sweep.file.registry.model,
        files={"model.onnx": model, "checkpoint.pth": model.with_suffix(".pth"), SPEC_FILE: spec},
        sweep=sweep.file.name,
        uid=header.uid,
        description=render_model_card(journal.state, sweep.folder, CostLedger(read_events(journal.path)).total()),
        tags=model_version_tags(journal.state),
        comparison=Verdict.from_dict(check["verdict"]) if check else None,
        set_alias=sweep.file.registry.alias,
        start=milliseconds(header),
    )
    verdict = registered.verdict
    journal.emit(ModelRegistered(model=sweep.file.registry.model, version=registered.version, alias=registered.alias))
    return {
        "model": sweep.file.registry.model,
        "version": registered.version,
        "alias": registered.alias,
        "against": verdict.against,
        "difference": verdict.difference.as_dict() if verdict.difference else None,
        "reason": verdict.reason,
    }
