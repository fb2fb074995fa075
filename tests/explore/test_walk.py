"""The walk's geometry, frame by frame, and its measure of smoothness."""

import numpy as np
import torch

from dcgan_dist.explore.walk import FRAMES, largest_steps, mix_pixels, path


def test_a_walk_is_one_path_of_hundred_frames_whose_rows_start_where_the_one_above_ends() -> None:
    points = torch.rand(11, 7, dtype=torch.float64)
    frames = path(points)
    assert frames.shape == (100, 7)
    for row in range(10):
        assert torch.equal(frames[10 * row], points[row])
        for j in range(10):
            wanted = points[row] + j / 10 * (points[row + 1] - points[row])
            torch.testing.assert_close(frames[10 * row + j], wanted)
    # The last point itself is not shown.
    assert not torch.isclose(frames[-1], points[10]).all()


def test_pixels_are_mixed_in_steps_of_a_tenth() -> None:
    images = np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 100, 50)])
    assert mix_pixels(images)[:, 0, 0, 0].tolist() == [*range(0, 100, 10), *range(100, 50, -5)]


def test_an_even_walk_scores_a_tenth_and_a_jump_one() -> None:
    ends = np.array([[0.0, 10.0], [10.0, 0.0]])
    even = path(torch.tensor([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0]])).numpy().astype(np.float64)
    np.testing.assert_allclose(largest_steps(even, ends), 0.1)
    jump = np.repeat(np.array([[0.0, 0.0], [0.0, 10.0]]), FRAMES, axis=0)
    np.testing.assert_allclose(largest_steps(jump, ends), 1.0)
    assert largest_steps(np.zeros((FRAMES, 2)), np.zeros((1, 2))).tolist() == [0.0]
