"""What the student is graded by: colour, edges, tone and local structure."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def edges(painted: Tensor, target: Tensor, *, scales: int = 3) -> Tensor:
    """Mean absolute difference of the gradients at full, half and quarter size.

    A line that is drawn blurred costs little in absolute error and much in its gradient.
    """
    total = painted.new_zeros(())
    # Gradients and means are linear: those of the difference are the differences of them.
    difference = painted - target
    for scale in range(scales):
        if scale:
            difference = functional.avg_pool2d(difference, 2)
        for axis in (2, 3):
            total = total + difference.diff(dim=axis).abs().mean()
    return total / scales


def structure(painted: Tensor, target: Tensor) -> Tensor:
    """One minus the mean structural similarity over windows of 7 × 7 (Wang et al., 2004)."""
    mean_p, mean_t = _window(painted), _window(target)
    variance_p = _window(painted * painted) - mean_p**2
    variance_t = _window(target * target) - mean_t**2
    covariance = _window(painted * target) - mean_p * mean_t
    steady_mean, steady_variance = 0.01**2, 0.03**2
    similarity = ((2 * mean_p * mean_t + steady_mean) * (2 * covariance + steady_variance)) / (
        (mean_p**2 + mean_t**2 + steady_mean) * (variance_p + variance_t + steady_variance)
    )
    return 1 - similarity.mean()


def tone(painted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the means over 8 × 8 pixels: what colour an area has.

    Without it the edges outweigh the areas, and flat colours come out pale.
    """
    return functional.avg_pool2d(painted - target, 8).abs().mean()


def colour(painted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the two opponent colours over 4 × 4 pixels.

    A breath of colour on plain paper is little in RGB, and seen at once; the colour of thin lines
    on black is little, too, and an absolute error in RGB is least where they are grey.
    """
    difference = functional.avg_pool2d(painted - target, 4)
    red, green, blue = difference.unbind(1)
    return ((red - green).abs() + (blue - (red + green) / 2).abs()).mean()


def loss(painted: Tensor, target: Tensor) -> Tensor:
    """The sum that is minimised; both pictures float N3HW of 0..1."""
    plain = (painted - target).abs().mean()
    return (
        plain
        + 1.0 * edges(painted, target)
        + 1.5 * tone(painted, target)
        + 0.3 * structure(painted, target)
        + 1.0 * colour(painted, target)
    )


def _window(picture: Tensor) -> Tensor:
    # Rows, then columns: a window of 7 × 7 at once took a sixth of a whole step of training.
    rows = functional.avg_pool2d(picture, (7, 1), stride=(2, 1))
    return functional.avg_pool2d(rows, (1, 7), stride=(1, 2))
