"""Samples made out of others by changing images."""

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.runtime.augmentation import augmented, check_images, read_augmentations, with_changed

IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5) + 1


def test_each_augmentation_doubles_the_samples() -> None:
    feeds = [{"image": IMAGES, "length": np.array([4, 5])}]
    found = with_changed(feeds, read_augmentations(["mirror", "shift=1"]), seed=0)
    assert len(found) == 4
    assert found[0] is feeds[0]
    np.testing.assert_array_equal(found[1]["image"], IMAGES[..., ::-1])
    assert all((feed["length"] == [4, 5]).all() for feed in found)
    for whole, moved in ((found[0], found[2]), (found[1], found[3])):
        padded = np.pad(whole["image"], ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = [padded[:, :, t : t + 4, k : k + 5] for t in range(3) for k in range(3)]
        for number, image in enumerate(moved["image"]):
            assert any((image == window[number]).all() for window in windows)
    again = with_changed(feeds, read_augmentations(["mirror", "shift=1"]), seed=0)
    assert all((a["image"] == b["image"]).all() for a, b in zip(found, again, strict=True))


def test_without_augmentations_the_feeds_stay() -> None:
    feeds = [{"image": IMAGES}]
    assert with_changed(feeds, [], seed=0) == feeds


def test_half_of_the_images_are_mirrored_by_chance() -> None:
    many = {"image": np.repeat(IMAGES[:1], 400, axis=0)}
    found = augmented(many, read_augmentations(["mirror"]), np.random.default_rng(0))["image"]
    turned = (found[:, 0, 0, 0] != IMAGES[0, 0, 0, 0]).mean()
    assert 0.4 < turned < 0.6


def test_what_is_no_image_stays() -> None:
    feed = {"sound": np.ones((2, 7), np.float32), "names": ["a"]}
    found = augmented(feed, read_augmentations(["mirror", "shift=3"]), np.random.default_rng(0))
    assert found["sound"] is feed["sound"]
    assert found["names"] is feed["names"]


@pytest.mark.parametrize("text", ["rotate", "mirror=2", "shift", "shift=0", "shift=-1", "shift=x"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither 'mirror' nor 'shift=N'"):
        read_augmentations([text])


def test_what_holds_no_image_is_refused() -> None:
    sounds = {"sound": np.ones((2, 7), np.float32)}
    check_images(sounds, [])
    check_images({"image": IMAGES, **sounds}, read_augmentations(["mirror"]))
    with pytest.raises(UsageError, match="no input is one"):
        check_images(sounds, read_augmentations(["mirror"]))
