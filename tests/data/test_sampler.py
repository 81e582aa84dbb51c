import numpy as np
import pytest

from reid_tune.data.sampler import IdentitySampler
from reid_tune.errors import InputError

MARKET_LIKE = np.random.default_rng(0).integers(1, 34, 751)
SIZES = {
    "ten of 400, ninety of 12": [400] * 10 + [12] * 90,
    "one image each": [1] * 50,
    "fewer than K": [1, 2, 3] * 10,
    "exactly P": [9, 10, 3, 30],
    "one more than P": [5, 5, 5, 7, 200],
    "one huge": [1000] + [4] * 20,
    "market": MARKET_LIKE.tolist(),
}


def make(sizes: list[int], batch_size: int = 16, seed: int = 3) -> tuple[np.ndarray, IdentitySampler]:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return labels, IdentitySampler(labels, batch_size, 4, seed)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_every_batch_has_p_identities_of_k_images(sizes: list[int]) -> None:
    labels, sampler = make(sizes)
    for number in range(3):
        batches = sampler.epoch(number)
        assert batches.shape == (max(1, round(len(labels) / 16)), 16) == (sampler.steps_per_epoch, 16)
        groups = labels[batches].reshape(len(batches), 4, 4)
        assert (groups == groups[..., :1]).all()
        for batch, identities in zip(batches, groups[..., 0], strict=True):
            assert len(set(identities)) == 4
            for images in batch.reshape(4, 4):
                assert len(set(images)) == min(4, sizes[labels[images[0]]])


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_images_are_cycled_within_and_over_epochs(sizes: list[int]) -> None:
    labels, sampler = make(sizes)
    total = np.zeros(len(labels), int)
    for number in range(12):
        flat = sampler.epoch(number).ravel()
        total += np.bincount(flat, minlength=len(labels))
        for identity, size in enumerate(sizes[:120]):
            order = flat[labels[flat] == identity]
            for start in range(0, len(order), size):
                part = order[start : start + size]
                assert len(set(part)) == len(part)
            counts = total[labels == identity]
            assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_all_images_are_visited_over_the_epochs(sizes: list[int]) -> None:
    labels, sampler = make(sizes)
    seen = np.zeros(len(labels), bool)
    for number in range(25):
        seen[sampler.epoch(number)] = True
    assert seen.all()


def reference_shares(sizes: list[int], per_step: int, steps: int) -> np.ndarray:
    """Bisect the factor for which capped proportional shares fill the epoch."""
    weights, low, high = np.maximum(sizes, 4), 0.0, float(per_step * steps * max(sizes))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(weights * middle, steps).sum() < per_step * steps else (low, middle)
    return np.minimum(weights * high, steps)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_visits_follow_the_share_of_images(sizes: list[int]) -> None:
    labels, sampler = make(sizes)
    shares = reference_shares(sizes, 4, sampler.steps_per_epoch)
    visits = np.array(
        [np.bincount(labels[sampler.epoch(number)[:, ::4]].ravel(), minlength=len(sizes)) for number in range(20)]
    )
    assert (visits >= np.floor(shares - 1e-4)).all() and (visits <= np.ceil(shares + 1e-4)).all()
    assert np.abs(visits.sum(0) - 20 * shares).max() < 3


def test_an_epoch_of_market_like_sizes_uses_almost_every_image_once() -> None:
    labels, sampler = make([20] * 200, batch_size=64)
    counts = np.bincount(sampler.epoch(0).ravel(), minlength=len(labels))
    assert abs(counts.sum() - len(labels)) <= 32
    assert (counts == 1).mean() > 0.95


def test_epochs_depend_on_seed_and_number_alone() -> None:
    labels, first = make(SIZES["market"])
    expected = [first.epoch(number) for number in range(4)]
    _, second = make(SIZES["market"])
    np.testing.assert_array_equal(second.epoch(3), expected[3])
    np.testing.assert_array_equal(second.epoch(1), expected[1])
    assert (expected[0] != expected[1]).any()
    assert (IdentitySampler(labels, 16, 4, 4).epoch(0) != expected[0]).any()


def test_identities_meet_in_changing_company() -> None:
    labels, sampler = make([8] * 12)
    met = np.zeros((12, 12), bool)
    for number in range(30):
        for identities in labels[sampler.epoch(number)[:, ::4]]:
            met[np.ix_(identities, identities)] = True
    assert met.all()


def test_bad_sizes_are_explained() -> None:
    labels = np.repeat(np.arange(5), 10)
    with pytest.raises(InputError, match="dataset.batch_size 30 .*dataset.num_instances 4"):
        IdentitySampler(labels, 30, 4, 0)
    with pytest.raises(InputError, match="dataset.batch_size 0"):
        IdentitySampler(labels, 0, 4, 0)
    with pytest.raises(InputError, match="5 identities.*16.*dataset.batch_size 64 / dataset.num_instances 4.*to 20"):
        IdentitySampler(labels, 64, 4, 0)


def cameras_of(sizes: list[list[int]], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and cameras of identities with these numbers of images by camera, in random order."""
    pairs = [(label, camera) for label, row in enumerate(sizes) for camera, size in enumerate(row) for _ in range(size)]
    labels, cameras = np.random.default_rng(seed).permutation(pairs).T
    return labels, cameras


CAMERA_SIZES = [[5, 5], [1, 9], [3], [1, 1, 1, 1, 1, 1], [7, 2, 2, 1], [2], [1, 1], [4, 4, 4]]


def test_a_visit_has_as_many_cameras_and_different_images_as_possible() -> None:
    labels, cameras = cameras_of(CAMERA_SIZES)
    sampler = IdentitySampler(labels, 16, 4, 3, cameras=cameras)
    seen = np.zeros(len(labels), int)
    for number in range(40):
        for images in sampler.epoch(number).reshape(-1, 4):
            (identity,) = set(labels[images])
            row = CAMERA_SIZES[identity]
            by_camera = np.bincount(cameras[images], minlength=len(row))
            assert (by_camera > 0).sum() == min(4, len(row))
            assert len(set(images)) == min(4, sum(row))
            if min(row) >= 4:
                assert by_camera.max() - by_camera.min() <= 1
        seen += np.bincount(sampler.epoch(number).ravel(), minlength=len(labels))
    assert (seen > 0).all()


def test_a_camera_repeats_no_image_before_all_were_used() -> None:
    labels, cameras = cameras_of([[3, 5, 2, 7, 4, 6]] * 5)
    batches = IdentitySampler(labels, 16, 4, 0, cameras=cameras).epoch(0).ravel()
    for identity in range(5):
        for camera in range(6):
            images = batches[(labels[batches] == identity) & (cameras[batches] == camera)]
            counts = np.bincount(images, minlength=len(labels))[(labels == identity) & (cameras == camera)]
            assert counts.max() - counts.min() <= 1


def test_camera_aware_batches_keep_the_visits_and_depend_on_seed_and_number_alone() -> None:
    labels, cameras = cameras_of(CAMERA_SIZES)
    plain, aware = IdentitySampler(labels, 16, 4, 3), IdentitySampler(labels, 16, 4, 3, cameras=cameras)
    again = IdentitySampler(labels, 16, 4, 3, cameras=cameras)
    for number in (5, 0, 2):
        np.testing.assert_array_equal(aware.epoch(number), again.epoch(number))
        np.testing.assert_array_equal(labels[aware.epoch(number)], labels[plain.epoch(number)])


def visits_per_epoch(sampler: IdentitySampler, labels: np.ndarray, epochs: int = 20) -> np.ndarray:
    return np.array([np.bincount(labels[sampler.epoch(number)[:, ::4]].ravel()) for number in range(epochs)])


def test_weights_are_factors_on_the_visits() -> None:
    labels = np.repeat(np.arange(40), 12)
    weights = np.where(labels < 20, 3.0, 1.0)
    sampler = IdentitySampler(labels, 16, 4, 0, weights=weights)
    assert sampler.steps_per_epoch == IdentitySampler(labels, 16, 4, 0).steps_per_epoch == 30
    means = visits_per_epoch(sampler, labels).mean(0)
    np.testing.assert_allclose(means[:20], 120 * 3 / 80, atol=0.1)
    np.testing.assert_allclose(means[20:], 120 / 80, atol=0.1)


@pytest.mark.parametrize("cap", [4, 7, 8, 21])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_no_identity_has_more_images_than_the_cap(sizes: list[int], cap: int) -> None:
    labels, _ = make(sizes)
    sampler = IdentitySampler(labels, 16, 4, 3, cap=cap)
    expected = max(1, round(np.minimum(sizes, cap).sum() / 16))
    assert sampler.steps_per_epoch == min(expected, len(sizes) * (cap // 4) // 4)
    for number in range(5):
        batches = sampler.epoch(number)
        assert np.bincount(labels[batches].ravel()).max() <= cap
        assert all(len(set(identities)) == 4 for identities in labels[batches[:, ::4]])


def test_a_cap_above_all_sizes_changes_nothing() -> None:
    labels, sampler = make(SIZES["market"])
    np.testing.assert_array_equal(IdentitySampler(labels, 16, 4, 3, cap=10**6).epoch(2), sampler.epoch(2))
