"""Rules of routers and layers that came later, in float64 PyTorch, each from its equation: the logits of `emoe` and
`prototype`, what a capacity keeps, and the layer `cp`. ermoe_model.py reads them.
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


def cp_shapes(config):
    """Factors of the two tensors (E, F, D) and (E, D, F) of a layer `cp`, and what makes its coefficients."""
    width, hidden, experts = config["model.width"], config["moe.hidden"] or 4 * config["model.width"], config["moe.experts"]
    rank = config["moe.cp_rank"] or max(1, config["moe.top_k"] * width * hidden // (width + hidden))
    shapes = {"gate": (experts, width)}
    for name, rows, columns in (("fc1", hidden, width), ("fc2", width, hidden)):
        shapes.update({f"{name}.mix": (rank, experts), f"{name}.down.weight": (rank, columns),
                       f"{name}.down.bias": (rank,), f"{name}.up.weight": (rows, rank)})
    return shapes


def mixture_of_all(p, name, x, gelu):
    """cp: every expert's matrices are made from the factors, and every token takes all experts by its coefficients."""
    a = torch.softmax(x @ p[f"{name}.gate"].T, dim=-1)
    for layer in ("fc1", "fc2"):
        factors = [p[f"{name}.{layer}.{key}"] for key in ("mix", "down.weight", "down.bias", "up.weight")]
        matrices = torch.einsum("re,ri,or->eoi", factors[0], torch.cat([factors[1], factors[2][:, None]], dim=1), factors[3])
        y = torch.einsum("bte,eoi,bti->bto", a, matrices, torch.cat([x, torch.ones_like(x[..., :1])], dim=-1))
        x = gelu(y) if layer == "fc1" else y
    return x
