"""InfoNCE: which of many keys belongs to a query? (van den Oord et al. 2018)"""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean over i of -log( e^{q_i p_i / T} / (e^{q_i p_i / T} + sum_j e^{q_i n_j / T}) ), MoCo's equation 1.

    Never in half precision: scores of 1 / T = 5 would be off by a hundredth.

    Args:
        queries: (N, D), of unit length, as all of them.
        positives: (N, D), the key of each query.
        negatives: (K, D), shared by all queries.
        temperature: T, above 0.

    Returns:
        The loss, and without gradient the share of queries whose positive is nearer than every negative.
    """
    with torch.autocast(queries.device.type, enabled=False):
        pull = (queries * positives).sum(dim=1) / temperature
        push = (queries @ negatives.T) / temperature
        loss = (torch.logaddexp(pull, push.logsumexp(dim=1)) - pull).mean()
        return loss, (pull.detach() > push.detach().amax(dim=1)).float().mean()
