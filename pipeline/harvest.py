"""What one more query of the target is expected to add to the campaign's result.

Named axes: q pool candidates, n candidates that have a value at the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.log_normal import log_expected_improvement


def log_harvest(mean: Tensor, sd: Tensor, values: Tensor, k: int) -> Tensor:
    """Log of the expected growth of the sum of the k best values by one query, `(q,)`.

    `mean`, `sd` `(q,)` are the target's posterior and `values (n,)` what it answered, one a
    candidate, all with larger better. A query adds max(f - w, 0), where w is the k-th best value,
    which leaves the k best (the worst of all while there are fewer than k; the mean of the
    posterior where there is none): expected improvement (Jones, Schonlau and Welch 1998, doi
    10.1023/A:1008306431147) over w instead of over the best. ValueError unless k >= 1.
    """
    if k < 1:
        raise ValueError(f"top_k: expected 1 or more, got {k}")
    sd = sd.clamp(min=1e-300)
    return sd.log() + log_expected_improvement((mean - _kth_best(values, mean, k)) / sd)


def _kth_best(values: Tensor, mean: Tensor, k: int) -> Tensor:
    if not len(values):
        return mean.mean()
    return torch.topk(values.double(), min(k, len(values))).values[-1]
