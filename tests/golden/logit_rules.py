"""Rules of routers that came later, in float64 PyTorch, each from its equation: the logits of `emoe` and `prototype`, and
what a capacity keeps. ermoe_model.py routes by them.
"""

import math

import torch
import torch.nn.functional as nnf


def energy_logits(config, r, x):
    """emoe: shares of the tokens' energy along the axes of a basis, mixed for each expert. (N, E)."""
    squares = (x @ r["basis"]) ** 2
    shares = squares / (squares.sum(1, keepdim=True) + 1e-6)
    mixing = torch.softmax(r["mixing"], dim=1)  # over the experts
    logits = torch.einsum("j,je,nj->ne", r["gamma"], mixing, shares) + r["bias"]
    return logits / config["moe.emoe_temperature"]


def prototype_logits(config, prototypes, x):
    """prototype: cosines over a temperature. (N, E)."""
    return nnf.cosine_similarity(x[:, None], prototypes[None], dim=2) / config["moe.prototype_temperature"]


def spectral_penalty(config, prototypes):
    """Weighed; of prototypes at unit length."""
    unit = prototypes / torch.linalg.vector_norm(prototypes, dim=1, keepdim=True)
    spread = ((unit @ unit.T - torch.eye(len(unit), dtype=unit.dtype)) ** 2).sum()
    return config["moe.prototype_spectrum"] * spread


def within_capacity(config, p, ids, trace):
    """What is kept of ids (N, K): an expert takes so many; first choices come before second ones, and among them
    tokens by their largest weight, or as they stand."""
    experts = config["moe.experts"]
    capacity, used, kept = math.ceil(ids.numel() * config["moe.capacity_train"] / experts), [0] * experts, ids.clone()
    order = range(len(ids))
    if config.get("moe.prioritized", False):
        trace["claims"] = p.max(dim=1).values
        order = sorted(order, key=lambda token: (-float(trace["claims"][token]), token))
    for slot in range(ids.shape[1]):
        for token in order:
            expert = int(ids[token, slot])
            used[expert] += 1
            if used[expert] > capacity:
                kept[token, slot] = -1
    return kept
