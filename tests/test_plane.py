"""Pictures of points in the plane."""

import numpy as np

from tfgen import plane


def test_points_are_scored_in_parts_of_bounded_size() -> None:
    sizes: list[int] = []

    def score(points: np.ndarray) -> np.ndarray:
        sizes.append(len(points))
        return points[:, 1]

    data = np.array([[1.0, 1.0]])
    picture = plane.draw(data, data, score, side=200)
    assert sum(sizes) == 200 * 200
    assert max(sizes) <= plane.CHUNK
    # The second coordinate points up, so light is above dark, whatever part a point was in.
    left = picture[:, 0, 0]
    light = left[left > 0.6]
    assert (np.diff(light) <= 1e-6).all()
    assert len(np.unique(light)) == plane.BANDS


def test_without_a_score_the_ground_is_white() -> None:
    picture = plane.draw(np.zeros((1, 2)), np.ones((1, 2)), side=50)
    assert picture.shape == (50, 50, 3)
    assert (picture.reshape(-1, 3) == 1).all(-1).sum() == 50 * 50 - 9 - 9
