"""Imports without the collection of garbage."""

import gc

import pytest

from reid_tune.imports import quick_imports


def test_no_garbage_is_searched_for_within_the_block() -> None:
    with quick_imports(), quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_searched_for_again_after_a_failed_import() -> None:
    with pytest.raises(ImportError), quick_imports():
        raise ImportError
    assert gc.isenabled()


def test_where_the_user_has_switched_it_off_it_stays_off() -> None:
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
