"""Tests see no GPU unless the command line selects tests of GPUs."""

import os

import pytest

from .helpers.gpus import hides_gpus, is_unit_tier


@pytest.mark.parametrize("expression", ["not integration and not gpu", "integration", "not gpu"])
def test_a_run_without_tests_of_gpus_hides_them(expression: str) -> None:
    assert hides_gpus(expression)


@pytest.mark.parametrize("expression", ["gpu", "gpu or integration", "not integration", "gpu or not gpu", ""])
def test_a_run_with_tests_of_gpus_shows_them(expression: str) -> None:
    assert not hides_gpus(expression)


@pytest.mark.parametrize(
    ("expression", "unit"),
    [
        ("not integration and not gpu", True),
        ("not integration", True),
        ("integration or hypothesis", False),
        ("gpu or integration", False),
        ("", False),
    ],
)
def test_the_unit_tier_is_what_leaves_out_integration(expression: str, unit: bool) -> None:
    assert is_unit_tier(expression) == unit


def test_this_run_and_its_processes_see_what_its_marks_select(request: pytest.FixtureRequest) -> None:
    import torch

    if hides_gpus(request.config.option.markexpr):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        assert not torch.cuda.is_available()
