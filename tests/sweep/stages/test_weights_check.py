import pytest
from timm.models.resnet import ResNet

from reid_tune.config.load import build_experiment
from reid_tune.errors import InputError
from reid_tune.sweep.stages.weights_check import check_networks


def test_a_network_without_the_layer_order_that_a_trial_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"model.backbone": "test_resnet", "model.input_height": 32, "model.input_width": 32}
    plain, decayed = (build_experiment({}, spec | {"train.optim.layer_decay": decay}, "test") for decay in (1.0, 0.9))
    assert check_networks([plain, decayed]) == []
    monkeypatch.setattr(ResNet, "group_matcher", None)
    assert check_networks([plain]) == []
    with pytest.raises(InputError, match="timm has none for a ResNet: set train.optim.layer_decay to 1"):
        check_networks([plain, decayed])
