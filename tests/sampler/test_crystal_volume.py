import torch
from torch import Tensor

from sampler.environments.crystal_volume import excluded_cosines, reachable_cosines


def boxes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes of two cosines from points to nearly everything, `(n, 2)` each."""
    generator = torch.Generator().manual_seed(seed)
    middle = 0.97 * (2 * torch.rand(n, 2, dtype=torch.float64, generator=generator) - 1)
    width = torch.rand(n, 2, dtype=torch.float64, generator=generator) ** 3
    return (middle - width).clamp_min(-0.99), (middle + width).clamp_max(0.99)


def smallest_cosine(low: Tensor, high: Tensor, least: Tensor) -> Tensor:
    """The smallest z with D ≥ least for some x, y of the box: a grid, zoomed in on its best."""
    u = torch.linspace(0, 1, 41, dtype=torch.float64)
    u = torch.stack(torch.meshgrid(u, u, indexing="ij"), dim=-1).view(1, -1, 2)
    start, stop = low[:, None], high[:, None]
    for _ in range(12):
        points = start + u * (stop - start)
        x, y = points.unbind(dim=2)
        room = (1 - x * x) * (1 - y * y) - least[:, None]
        z = torch.where(room >= 0, x * y - room.clamp_min(0).sqrt(), torch.inf)
        best, where = z.min(dim=1)
        point = points.gather(1, where[:, None, None].expand(-1, 1, 2))
        reach = 0.15 * (stop - start)
        start = torch.maximum(point - reach, low[:, None])
        stop = torch.minimum(point + reach, high[:, None])
    return best


def test_the_cosines_of_one_angle_end_where_a_search_over_the_others_ends() -> None:
    low, high = boxes(400, 0)
    least = torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) ** 2
    least = least.clamp_min(1e-4)
    smallest, largest = reachable_cosines(low, high, least)
    assert smallest.isfinite().sum() > 100
    assert smallest.isinf().sum() > 50
    torch.testing.assert_close(smallest, smallest_cosine(low, high, least), atol=1e-5, rtol=0)
    mirrored = -torch.stack([high[:, 0], low[:, 0]]), torch.stack([low[:, 1], high[:, 1]])
    other_low, other_high = (torch.stack(pair, dim=1) for pair in zip(*mirrored, strict=True))
    found = -smallest_cosine(other_low, other_high, least)
    torch.testing.assert_close(largest, found, atol=1e-5, rtol=0)


def test_the_cosines_that_leave_too_big_a_volume_do_so_all_over_the_box() -> None:
    low, high = boxes(120, 2)
    high = low + 0.4 * (high - low)
    most = 0.9 * torch.rand(120, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    first, last = excluded_cosines(low, high, most)
    u = torch.linspace(0, 1, 21, dtype=torch.float64)
    u = torch.stack(torch.meshgrid(u, u, indexing="ij"), dim=-1).view(1, -1, 2)
    x, y = (low[:, None] + u * (high - low)[:, None])[..., None].unbind(dim=2)
    z = torch.linspace(-1, 1, 401, dtype=torch.float64).view(1, 1, -1)
    is_too_big = (1 + 2 * x * y * z - x * x - y * y - z * z > most.view(-1, 1, 1)).all(dim=1)
    assert is_too_big.any(dim=1).sum() > 15
    assert (is_too_big == ((z[0] > first[:, None]) & (z[0] < last[:, None]))).all()
