"""The line about queries without a match, against the ranking and one query at a time."""

from hypothesis import given
from hypothesis import strategies as st

from reid_tune.evaluation.score import score
from reid_tune.evaluation.unmatched import describe_unmatched_queries

from ..helpers.evaluation_reference import made_up

Images = st.lists(st.tuples(st.integers(-1, 9), st.integers(1, 3)), max_size=20)


def test_absent_identities_and_those_of_the_own_camera_are_told_apart():
    queries = [(1, 1), (2, 1), (3, 1), (3, 2), (7, 1)]
    gallery = [(1, 2), (3, 1), (3, 1), (0, 5), (-1, 5)]
    assert describe_unmatched_queries(queries, gallery) == (
        "3 of 5 queries have no match in the gallery and count in no metric; identities absent from it: 2, 7; "
        "identities there only under the query's own camera: 3"
    )
    assert describe_unmatched_queries(queries[:1], gallery) is None


def test_many_identities_are_counted_and_each_is_named_once():
    line = describe_unmatched_queries([(identity % 9, 1) for identity in range(2000)], [(100, 1)])
    assert line == (
        "2,000 of 2,000 queries have no match in the gallery and count in no metric; "
        "identities absent from it: 0, 1, 2, 3, 4 and 4 more"
    )


def test_junk_is_no_match():
    assert "absent from it: -1" in (describe_unmatched_queries([(-1, 1)], [(-1, 2)]) or "")


@given(Images, Images)
def test_the_line_counts_the_queries_without_a_match(queries, gallery):
    alone = sum(
        not any(identity == other != -1 and camera != place for other, place in gallery) for identity, camera in queries
    )
    line = describe_unmatched_queries(queries, gallery)
    assert (line or "0 of all").startswith(f"{alone} of ")


def test_the_line_counts_what_the_score_leaves_out():
    features = made_up(queries=60, gallery=20, identities=15)
    labels = [
        zip(ids.tolist(), cameras.tolist(), strict=True)
        for ids, cameras in (
            (features.query_ids, features.query_cameras),
            (features.gallery_ids, features.gallery_cameras),
        )
    ]
    found = score(features)
    assert found.unmatched > 0 and (describe_unmatched_queries(*labels) or "").startswith(
        f"{found.unmatched} of 60 queries"
    )
