"""Which settings the golden cases have: a greedy pairwise covering of the ERMoE options, and the other routers by hand.

`all_cases()` returns the same cases on every machine (own seed, no dependence on hash order). Combinations that the
engine refuses are never made; `feasible` lists them. Read next: make_golden.py.
"""

import itertools
import random

from ermoe_model import DEFAULTS

# One factor a line. Every pair of values of the moe factors is covered; the others are dealt at random. `settings`
# spells out "sizes", "rank" and "threshold", and deals the losses and the optimizer's settings in turn.
FACTORS = {
    "moe.orthogonality": ["newton_schulz", "gram_schmidt", "cholesky_qr", "cayley", "penalty", "none"],
    "moe.basis": ["leading", "disjoint", "untied"],
    "moe.threshold": ["none", "number", "quantile"],
    "moe.combine": ["normalized", "softmax", "raw"],
    "moe.top_k": [1, 2, "all"],
    "moe.free_experts": [0, 1, 2],
    "allow": [False, True],
    "moe.expert": ["eigen", "plain"],
    "moe.score": ["context_cosine", "subspace_cosine"],
    "moe.context": ["attention", "attention_mean"],
    "moe.center": [True, False],
    "moe.standardize": [True, False],
    "rank": ["full", "low"],
    "sizes": ["wide", "deep", "narrow"],
    "model.patch": [4, 2],
    "model.pool": ["token", "average"],
    "model.positions": ["learned", "sincos"],
    "model.qk_norm": [False, True],
    "model.layer_scale": [0.0, 0.5],
}

SIZES = {
    "wide": {"model.width": 12, "model.depth": 2, "moe.layers": "every:2", "moe.hidden": 13, "moe.basis_rank": 3,
             "model.mlp_ratio": 1.25},
    "deep": {"model.width": 8, "model.depth": 3, "moe.layers": "last:2", "moe.hidden": 6, "moe.basis_rank": 2,
             "model.mlp_ratio": 1.0},
    "narrow": {"model.width": 8, "model.depth": 2, "moe.layers": "0", "moe.hidden": 9, "moe.basis_rank": 2,
               "moe.experts": 3, "model.mlp_ratio": 1.0},
}
LOW_RANK = {"wide": 5, "deep": 4, "narrow": 4}
LOSSES = {
    "plain": {},
    "smooth": {"loss.smoothing": 0.1},
    "weighted": {"loss.class_weights": [0.5, 1.0, 2.0, 0.75, 1.25], "loss.smoothing": 0.05},
    "sigmoid": {"loss.kind": "sigmoid", "loss.smoothing": 0.1},
}

BY_HAND = [
    {"moe.layers": "none", "model.pool": "average", "model.positions": "sincos", "model.patch": 4},
    {"moe.layers": "none", "model.qk_norm": True, "model.layer_scale": 0.1},
    {"moe.router": "linear", "moe.expert": "eigen", "moe.top_k": 2, "rank": "low"},
    {"moe.router": "linear", "moe.expert": "plain", "moe.top_k": 1, "moe.experts": 2,
     "moe.hidden": 0, "model.pool": "average", "sizes": "deep"},
    {"moe.router": "vmoe", "moe.expert": "plain", "moe.top_k": 2, "moe.group_images": 1},
    {"moe.router": "vmoe", "moe.expert": "eigen", "moe.top_k": 1, "moe.orthogonality": "cholesky_qr",
     "moe.importance_weight": 0.05, "moe.load_weight": 0.2, "sizes": "narrow"},
    {"moe.router": "switch_lbl", "moe.expert": "plain", "moe.top_k": 2, "moe.balance_weight": 0.05,
     "moe.z_weight": 1e-3},
    {"moe.router": "switch_lbl", "moe.expert": "eigen", "moe.top_k": "all", "moe.orthogonality": "cayley",
     "sizes": "narrow"},
    {},  # the defaults
    {"allow": True, "moe.free_experts": 1, "moe.score": "subspace_cosine", "moe.basis": "disjoint", "rank": "low"},
]

# Routers and losses that came after the files above were numbered: these stand behind them.
BIAS = {"moe.router": "bias_balanced", "moe.gate": "sigmoid", "moe.bias_rate": 0.02}
COSINE = {"moe.router": "learned_cosine", "moe.cosine_width": 5, "moe.cosine_scale": 2.0}
VMOE = {"moe.router": "vmoe", "moe.group_images": 1}
EMOE = {"moe.router": "emoe", "moe.emoe_rank": 5, "moe.emoe_temperature": 1.0}
ADAPTER = {"moe.adapter": 7, "moe.hidden": 0}
PROTOTYPE = {"moe.router": "prototype", "moe.prototype_temperature": 0.1, "moe.prototype_spectrum": 0.05}
MIXED = {"moe.layer": "cp", "moe.router": "linear", "moe.expert": "plain"}
CHOICE = {"moe.router": "expert_choice", "moe.choice_images": 0}
SHARE = {"moe.combine": "share", "moe.combine_scale": 10.0}
SOFT = {"moe.router": "soft", "moe.soft_slots": 0}
LATER = [
    {**BIAS, "moe.expert": "eigen", "moe.top_k": 2, "rank": "low"},
    {**BIAS, "moe.gate": "softmax", "moe.expert": "plain", "moe.top_k": 1, "moe.extra_balance": 0.05,
     "moe.z_weight": 1e-2, "sizes": "deep"},
    {**COSINE, "moe.expert": "eigen", "moe.top_k": 2, "sizes": "narrow"},
    {**COSINE, "moe.cosine_width": 3, "moe.expert": "plain", "moe.top_k": 1, "moe.extra_balance": 0.05},
    {"moe.extra_balance": 0.05, "moe.z_weight": 1e-2, "moe.combine": "softmax", "rank": "low"},
    {**CHOICE, "moe.expert": "eigen", "moe.top_k": 2, "moe.z_weight": 1e-2, "rank": "low"},
    {**CHOICE, "moe.choice_images": 2, "moe.expert": "plain", "moe.top_k": 1, "sizes": "deep"},
    {**CHOICE, "moe.choice_images": 1, "moe.expert": "plain", "moe.top_k": 2, "sizes": "narrow"},
    {**CHOICE, "moe.experts": 12, "moe.choice_images": 1, "moe.expert": "plain", "moe.top_k": 1, "model.patch": 4,
     "model.pool": "average"},
    {**SOFT, "moe.expert": "eigen", "moe.top_k": 2, "rank": "low"},
    {**SOFT, "moe.soft_slots": 1, "moe.expert": "plain", "moe.top_k": 1, "sizes": "deep"},
    {**SOFT, "moe.soft_slots": 3, "moe.expert": "plain", "moe.top_k": 2, "sizes": "narrow"},
]


# Case files from this number on; those below it, behind LATER, are other routers'.
FROM_43 = [
    {**VMOE, "moe.expert": "plain", "moe.top_k": 2, "moe.capacity_train": 0.75, "moe.capacity_eval": 0.75},
    {**VMOE, "moe.expert": "eigen", "moe.top_k": 2, "moe.capacity_train": 0.75, "moe.capacity_eval": 0.75,
     "moe.prioritized": True, "sizes": "narrow"},
    {**EMOE, "moe.expert": "eigen", "moe.top_k": 1, "rank": "low"},
    {**EMOE, "moe.emoe_rank": 128, "moe.expert": "plain", "moe.top_k": 2, "moe.emoe_temperature": 0.25,
     "moe.orthogonality": "cholesky_qr", "moe.extra_balance": 0.05, "moe.z_weight": 1e-2, "sizes": "deep"},
    {**EMOE, "moe.expert": "plain", "moe.top_k": 1, "moe.orthogonality": "penalty", "sizes": "narrow"},
    {**EMOE, "moe.expert": "plain", "moe.top_k": 1, **ADAPTER, "moe.adapter_scale": 0.5, "sizes": "deep"},
    {"moe.adapter": 9, "moe.hidden": 0, "model.pool": "average", "sizes": "narrow"},
    {**PROTOTYPE, "moe.expert": "eigen", "moe.top_k": 2, "sizes": "narrow"},
    {**PROTOTYPE, "moe.prototype_temperature": 0.5, "moe.expert": "plain", "moe.top_k": 1, "moe.extra_balance": 0.05},
    {**MIXED, "moe.cp_rank": 0, "moe.top_k": 1, "sizes": "deep"},
    {**MIXED, "moe.cp_rank": 7, "model.pool": "average", "sizes": "narrow"},
    {**SHARE, "moe.score": "subspace_cosine", "moe.basis": "disjoint", "moe.top_k": 2, "rank": "low"},
    {**SHARE, "moe.threshold": "quantile", "moe.free_experts": 1, "moe.top_k": 2, "sizes": "narrow"},
    {**SHARE, "moe.basis": "untied", "moe.score": "subspace_cosine", "moe.expert": "plain", "moe.top_k": 1},
]

# Loss terms beside a router, from this number on; those before are other routers' and layers'.
FIRST_OF_TERMS = 60
TERMS = [
    {"moe.router": "linear", "moe.expert": "eigen", "moe.top_k": 2, "moe.simbal_weight": 0.05,
     "moe.orthogonal_output_weight": 0.5, "moe.variance_weight": 2.0, "rank": "low"},
    {**BIAS, "moe.gate": "softmax", "moe.expert": "plain", "moe.top_k": 2, "moe.simbal_weight": 0.02,
     "moe.variance_weight": 1.0, "sizes": "deep"},
    {**COSINE, "moe.expert": "eigen", "moe.top_k": "all", "moe.simbal_weight": 0.05,
     "moe.orthogonal_output_weight": 0.2, "sizes": "narrow"},
    {"moe.orthogonal_output_weight": 0.3, "moe.variance_weight": 3.0, "moe.combine": "softmax", "rank": "low"},
]

# Whose experts are made from dense networks (`dense.*` of the file), from this number on.
FIRST_UPCYCLED = 85
UPCYCLED = [
    {"train.upcycle": True, "moe.combine": "softmax", "moe.top_k": 2},
    {"train.upcycle": True, "moe.basis": "disjoint", "moe.threshold": "number", "moe.free_experts": 1, "sizes": "narrow"},
    {"train.upcycle": True, "moe.score": "subspace_cosine", "moe.top_k": 2, "rank": "low", "sizes": "narrow"},
]


def feasible(case):
    """Whether the engine accepts these values, each of them has an effect, and the file stays small."""
    free = case["moe.free_experts"]
    quantile, eigen = case["moe.threshold"] == "quantile", case["moe.expert"] == "eigen"
    refused = [
        not eigen and case["moe.basis"] != "untied",  # no V1 to take a basis from
        case["moe.score"] == "subspace_cosine" and case["moe.context"] != "attention",  # reads no context
        free and case["moe.threshold"] == "none",  # but where there is a mask: the last of BY_HAND
        case["allow"] and not free,
    ]
    large = [
        quantile and case["sizes"] != "narrow",
        free and case["sizes"] != "narrow" and case["rank"] == "full",
        free == 2 and case["sizes"] == "deep",
    ]
    constant = case["moe.top_k"] == 1 and case["moe.combine"] != "raw"  # the weight of one expert: no gradient
    pointless = [
        not eigen and case["rank"] == "low",
        constant and case["moe.basis"] == "untied" and case["moe.orthogonality"] == "penalty",  # amplifies rounding
    ]
    return not any(refused + large + pointless)


def fill(fixed, rng):
    """A feasible case with these values, at random in the rest; None where none is found."""
    for _ in range(200):
        case = {key: fixed.get(key, rng.choice(values)) for key, values in FACTORS.items()}
        if feasible(case):
            return case
    return None


def covered(items):
    return sorted((key, value) for key, value in items.items() if key == "allow" or key.startswith("moe."))


def pairs_of(case):
    return set(itertools.combinations(covered(case), 2))


def pairwise_covering():
    """Cases in which every feasible pair of values of two factors occurs."""
    rng, missing = random.Random(12), []
    for (a, values_a), (b, values_b) in itertools.combinations(covered(FACTORS), 2):
        for pair in itertools.product([(a, v) for v in values_a], [(b, v) for v in values_b]):
            if fill(dict(pair), rng):
                missing.append(pair)
    cases, todo = [], dict.fromkeys(missing)
    while todo:
        first = next(iter(todo))
        candidates = [case for _ in range(1000) if (case := fill(dict(first), rng))]
        best = max(candidates, key=lambda case: len(pairs_of(case) & todo.keys()))
        for pair in pairs_of(best) & todo.keys():
            del todo[pair]
        cases.append(best)
    return cases


def settings(case, index):
    """The full config of a case, and whether it has an allow-mask."""
    case = dict(case)
    sizes, allow = case.pop("sizes", "wide"), case.pop("allow", False)
    config = dict(DEFAULTS)
    config.update({"model.image_size": 8, "model.heads": 2, "model.classes": 5, "model.patch": 2, "moe.experts": 4,
                   "optim.clip": (0.5, 0.0, 5.0)[index // 4 % 3]})
    config.update({**SIZES[sizes], **list(LOSSES.values())[index % 4]})
    if case.pop("rank", "full") == "low":
        config["moe.rank"] = LOW_RANK[sizes]
    config.update(case)
    config["model.channels"] = 3 if config["model.patch"] == 2 else 1
    if config["moe.top_k"] == "all":
        config["moe.top_k"] = config["moe.experts"]
    subspace = config["moe.score"] == "subspace_cosine"
    if config["moe.threshold"] == "number":
        config["moe.threshold"] = "0.5" if subspace else "0.1"
    if config["moe.threshold"] == "quantile":
        config["moe.threshold"] = ("quantile:0.1", "quantile:0.3")[index % 2]
    config["moe.penalty"] = 0.05
    config["moe.momentum"] = (0.05, 0.25)[index % 2]
    config["moe.decay_scales"] = index % 5 < 2
    config["optim.lr"] = (3e-3, 1e-3, 1e-2)[index % 3]
    config["optim.weight_decay"] = (0.05, 0.0, 0.3)[(index // 3) % 3]
    config["optim.eps"] = (1e-6, 1e-5)[index % 2]
    return config, allow


def all_cases():
    """{number of a case file: (config, has an allow-mask)}."""
    cases = dict(enumerate(BY_HAND + pairwise_covering() + LATER))
    for number, case in [*enumerate(FROM_43, 43), *enumerate(TERMS, FIRST_OF_TERMS), *enumerate(UPCYCLED, FIRST_UPCYCLED)]:
        assert number not in cases, number
        cases[number] = case
    return {number: settings(case, number) for number, case in cases.items()}
