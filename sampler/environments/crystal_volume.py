"""Which angles and lengths leave the volume of a cell within limits, in closed form.

With x, y, z the cosines of the three angles, a cell has the volume a·b·c·√D,
D = 1 + 2xyz − x² − y² − z² (International Tables for Crystallography A, ch. 5), the determinant of
the Gram matrix of its unit axes. log D is concave where that matrix is positive, so the cosines
with D ≥ d form a convex set: whatever box the other two lie in, those of one angle are an interval.
D itself is concave in each cosine alone, so that it is smallest at a corner of a box.

Named axes: n rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 1e-12
_RELAXED = tuple(1e-6 * 4**i for i in range(6))  # of D; rounding two angles moves it by < 1e-3


def determinant(angles: Tensor) -> Tensor:
    """D = (volume / abc)² of cells with `angles` `(n, 3)` in degrees, `(n,)`; < 0: no cell."""
    x, y, z = angles.deg2rad().cos().unbind(dim=1)
    return 1 + 2 * x * y * z - x * x - y * y - z * z


def reachable_cosines(low: Tensor, high: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the interval of one angle's cosine with D ≥ `least` `(n,)` > 0, `(n,)` each.

    `low`, `high` `(n, 2)`: the box of the other two cosines. (inf, -inf) where it has no D so big.

    For fixed (x, y) the ends are z = xy ± √((1−x²)(1−y²) − d); the upper is concave and the lower
    convex in (x, y), both best at x = y = 0. The best point of a box then lies on a side that
    faces the origin, and on the side x = x₀ at y = ±x₀ √(1 − d/(1−x₀²)), moved into the box.
    """
    sign = low.new_tensor([-1.0, 1.0]).view(2, 1, 1)
    near = low.clamp_min(0) + high.clamp_max(0)
    sine_squared = 1 - near * near
    least = least[:, None]
    best = near * (1 - least / sine_squared).clamp_min(0).sqrt()
    other = (sign * best).clamp(low.flip(1), high.flip(1))
    room = sine_squared * (1 - other * other) - least
    cosines = near * other + sign * room.clamp_min(0).sqrt()
    cosines = torch.where(room >= -_ROUNDING, cosines, -sign * torch.inf)
    return cosines[0].amin(dim=1), cosines[1].amax(dim=1)


def excluded_cosines(low: Tensor, high: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the open interval of one angle's cosine that leaves D > `most` `(n,)`, `(n,)` each.

    `low`, `high` `(n, 2)`: the box of the other two cosines, all of which must be too big. The
    first end is not below the second where nothing is excluded.
    """
    x = torch.stack([low[:, 0], low[:, 0], high[:, 0], high[:, 0]], dim=1)
    y = torch.stack([low[:, 1], high[:, 1], low[:, 1], high[:, 1]], dim=1)
    root = ((1 - x * x) * (1 - y * y) - most[:, None]).clamp_min(0).sqrt()
    return (x * y - root).amax(dim=1), (x * y + root).amin(dim=1)


def angle_bounds(
    low: Tensor, high: Tensor, angle: Tensor, least: Tensor, most: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where column `angle` `(n,)` of a box of angles leaves some cell with D from least to most.

    `low`, `high` `(n, 3)` in degrees: the box, equal where an angle is known. Returns low, high
    and the open gap inside, degrees, `(n,)` each: a continuous D that has values on both sides
    of a limit has the limit too, so the two conditions can be taken apart. Empty: low > high.
    Without a gap its ends are both `high`.
    """
    rows = torch.arange(len(low), device=low.device)
    others = _OTHERS.to(low.device)[angle]
    cos_low = high.gather(1, others).deg2rad().cos()
    cos_high = low.gather(1, others).deg2rad().cos()
    smallest, largest = reachable_cosines(cos_low, cos_high, least)
    first = torch.maximum(low[rows, angle], _degrees(largest))
    last = torch.minimum(high[rows, angle], _degrees(smallest))
    is_empty = smallest > largest
    first = first.masked_fill(is_empty, torch.inf)
    last = last.masked_fill(is_empty, -torch.inf)
    if most is None:
        return first, last, last, last
    smallest, largest = excluded_cosines(cos_low, cos_high, most)
    gap_low, gap_high = _degrees(largest), _degrees(smallest)
    is_low, is_high = gap_low < first, gap_high > last
    has_gap = (smallest < largest) & (gap_high > first) & (gap_low < last)
    new_first = torch.where(has_gap & is_low, gap_high, first)
    new_last = torch.where(has_gap & is_high, gap_low, last)
    is_inside = has_gap & ~is_low & ~is_high
    return (
        new_first,
        new_last,
        torch.where(is_inside, gap_low, new_last),
        torch.where(is_inside, gap_high, new_last),
    )


def angle_bounds_or_nearest(
    low: Tensor, high: Tensor, angle: Tensor, least: Tensor, most: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`angle_bounds`, with the limits relaxed step by step where they leave nothing.

    Known angles are rounded: a range as narrow as that may have vanished.
    """
    ends = torch.stack(angle_bounds(low, high, angle, least, most))
    for relaxed in _RELAXED:
        rows = (ends[0] > ends[1]).nonzero()[:, 0]
        if len(rows) == 0:
            break
        row_most = None if most is None else most[rows] + relaxed
        row_least = (least[rows] - relaxed).clamp_min(1e-6)
        ends[:, rows] = torch.stack(
            angle_bounds(low[rows], high[rows], angle[rows], row_least, row_most)
        )
    return ends[0], ends[1], ends[2], ends[3]


def length_bounds(
    log_volumes: tuple[Tensor, Tensor],
    log_factor: Tensor,
    log_others: tuple[Tensor, Tensor],
    power: Tensor,
) -> tuple[Tensor, Tensor]:
    """Where a length leaves the others room to make a volume within limits, Å, `(n,)` each.

    `log_factor` is that of the volume over abc, `log_others` the logs of the smallest and largest
    product of the other lengths; `power`: how often the length itself enters abc.
    """
    low = (log_volumes[0] - log_factor - log_others[1]) / power
    high = (log_volumes[1] - log_factor - log_others[0]) / power
    return low.exp(), high.exp()


def _degrees(cosine: Tensor) -> Tensor:
    return cosine.clamp(-1, 1).acos().rad2deg()


_OTHERS = torch.tensor([[1, 2], [0, 2], [0, 1]])
