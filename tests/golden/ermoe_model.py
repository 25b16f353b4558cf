"""ViT-ERMoE in float64 PyTorch: the independent model that the C++ engine is compared with.

It follows the method's description (README.md lists every choice where that is silent) and shares nothing with the
engine: parameters are a dict of plain tensors under timm names, gradients come from torch's autograd, and selection is
a loop over tokens, so that each rule can be read as a sentence. Read next: ermoe_optim.py (one optimizer step),
make_golden.py (the cases).
"""

import math

import torch
import torch.nn.functional as nnf

import logit_rules
from running_statistics import HISTOGRAM_BINS, update_statistics  # noqa: F401

NORM_EPS = 1e-6
SIGMA_EPS = 1e-6  # inside the root of the score's standard deviation
WEIGHT_FLOOR = 1e-3  # of a score in the normalized combine
CV_EPS = 1e-10
OVERLAP_EPS = 1e-6

# Names and defaults of models/config.h under the dotted keys of the case files.
DEFAULTS = {
    "model.image_size": 32, "model.channels": 3, "model.patch": 4, "model.width": 192, "model.depth": 8,
    "model.heads": 6, "model.mlp_ratio": 4.0, "model.classes": 10, "model.pool": "token",
    "model.positions": "learned", "model.qk_norm": False, "model.layer_scale": 0.0, "model.dropout": 0.0,
    "model.drop_path": 0.0, "model.recompute": False,
    "moe.layers": "every:2", "moe.router": "ermoe", "moe.expert": "eigen", "moe.experts": 8, "moe.top_k": 2,
    "moe.hidden": 0, "moe.rank": 0, "moe.orthogonality": "newton_schulz", "moe.penalty": 5e-5,
    "moe.decay_scales": False, "moe.basis": "leading", "moe.basis_rank": 0, "moe.score": "context_cosine",
    "moe.context": "attention", "moe.center": True, "moe.standardize": True, "moe.momentum": 0.05,
    "moe.threshold": "none", "moe.free_experts": 0, "moe.combine": "normalized", "moe.noise": 0.0,
    "moe.importance_weight": 0.005, "moe.load_weight": 0.005, "moe.group_images": 8, "moe.capacity_train": 0.0,
    "moe.capacity_eval": 0.0, "moe.balance_weight": 0.01, "moe.z_weight": 0.0,
    "optim.lr": 1e-3, "optim.min_lr": 1e-5, "optim.beta1": 0.9, "optim.beta2": 0.999, "optim.eps": 1e-8,
    "optim.weight_decay": 0.05, "optim.layer_decay": 1.0, "optim.clip": 1.0, "optim.schedule": "constant",
    "optim.warmup_steps": 0, "optim.cooldown_steps": 0, "optim.ema": 0.0,
    "loss.kind": "cross_entropy", "loss.smoothing": 0.0, "loss.class_weights": [],
}


# Sizes and names

def moe_blocks(config):
    """Indices of the blocks with experts; every:n takes the last block of each n."""
    depth, text = config["model.depth"], config["moe.layers"]
    if text == "none":
        return []
    kind, _, count = text.partition(":")
    if kind == "every":
        return [i for i in range(depth) if (i + 1) % int(count) == 0]
    if kind == "last":
        return list(range(depth - int(count), depth))
    return [int(i) for i in text.split(",")]


def tokens_per_image(config):
    """T: patches, and the class token where pooling is by token."""
    side = config["model.image_size"] // config["model.patch"]
    return side * side + (config["model.pool"] == "token")


def slots_of(config):
    """P: slots an expert and image of soft routing; as given, or those of as much work as K experts a token."""
    if config.get("moe.soft_slots", 0):
        return config["moe.soft_slots"]
    return max(1, math.ceil(config["moe.top_k"] * tokens_per_image(config) / config["moe.experts"]))


def quantile_of(config):
    """The share q of "quantile:q", or None."""
    kind, _, value = config["moe.threshold"].partition(":")
    return float(value) if kind == "quantile" else None


def parameter_shapes(config):
    """Name -> shape, in the order of the model."""
    width, patch, classes = config["model.width"], config["model.patch"], config["model.classes"]
    shapes = {}
    if config["model.pool"] == "token":
        shapes["cls_token"] = (1, 1, width)
    if config["model.positions"] == "learned":
        shapes["pos_embed"] = (1, tokens_per_image(config), width)
    shapes["patch_embed.proj.weight"] = (width, config["model.channels"], patch, patch)
    shapes["patch_embed.proj.bias"] = (width,)
    for block in range(config["model.depth"]):
        shapes.update({f"blocks.{block}.{name}": shape for name, shape in block_shapes(config, block).items()})
    norm = "norm" if config["model.pool"] == "token" else "fc_norm"
    shapes.update({f"{norm}.weight": (width,), f"{norm}.bias": (width,)})
    shapes.update({"head.weight": (classes, width), "head.bias": (classes,)})
    return shapes


def block_shapes(config, block):
    width = config["model.width"]
    shapes = {"norm1.weight": (width,), "norm1.bias": (width,)}
    shapes.update({"attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,)})
    if config["model.qk_norm"]:
        head = (width // config["model.heads"],)
        for name in ("q_norm", "k_norm"):
            shapes.update({f"attn.{name}.weight": head, f"attn.{name}.bias": head})
    shapes.update({"attn.proj.weight": (width, width), "attn.proj.bias": (width,)})
    if config["model.layer_scale"]:
        shapes["ls1.gamma"] = (width,)
    shapes.update({"norm2.weight": (width,), "norm2.bias": (width,)})
    with_experts, beside = block in moe_blocks(config), config.get("moe.adapter", 0) > 0
    if with_experts and config.get("moe.layer", "routed") == "cp":
        shapes.update({f"cp.{name}": shape for name, shape in logit_rules.cp_shapes(config).items()})
    elif with_experts:
        shapes.update({f"moe.{name}": shape for name, shape in moe_shapes(config).items()})
    if beside or not with_experts:
        hidden = int(width * config["model.mlp_ratio"])
        shapes.update({"mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,)})
        shapes.update({"mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,)})
    if config["model.layer_scale"]:
        shapes["ls2.gamma"] = (width,)
    return shapes


def moe_shapes(config):
    width, experts, free = config["model.width"], config["moe.experts"], config["moe.free_experts"]
    hidden = config.get("moe.adapter", 0) or config["moe.hidden"] or 4 * width
    rank, basis_rank = config["moe.rank"] or min(hidden, width), config["moe.basis_rank"]
    every = experts + free
    ermoe, disjoint = config["moe.router"] == "ermoe", config["moe.basis"] == "disjoint"
    shapes = {}
    if config["moe.router"] == "learned_cosine":
        size = config["moe.cosine_width"]
        shapes.update({"router.projection": (size, width), "router.embeddings": (experts, size),
                       "router.temperature": (1,)})
    elif config["moe.router"] == "emoe":
        size = min(config["moe.emoe_rank"], width)
        shapes.update({"router.basis": (width, size), "router.mixing": (size, experts), "router.gamma": (size,),
                       "router.bias": (experts,)})
    elif config["moe.router"] == "prototype":
        shapes["router.prototypes"] = (experts, width)
    elif config["moe.router"] == "soft":
        shapes.update({"router.phi": (experts * slots_of(config), width), "router.scale": (1,)})
    elif not ermoe:
        shapes["router.weight"] = (experts, width)
    elif disjoint:
        shapes["router.basis"] = (width, experts * basis_rank)
    elif config["moe.basis"] == "untied":
        shapes["router.basis"] = (experts, width, basis_rank)
    if ermoe and config["moe.combine"] in ("softmax", "share"):
        shapes["router.temperature"] = (1,)
    if config["moe.expert"] == "plain":
        shapes.update({"experts.W1": (every, hidden, width), "experts.b1": (every, hidden)})
        shapes.update({"experts.W2": (every, width, hidden), "experts.b2": (every, width)})
        return shapes
    shapes.update({"experts.U1": (every, hidden, rank), "experts.s1": (every, rank)})
    if ermoe and disjoint:
        shapes["experts.V1"] = (experts, width, rank - basis_rank)
        if free:
            shapes["experts.free_V1"] = (free, width, rank)
    else:
        shapes["experts.V1"] = (every, width, rank)
    shapes["experts.b1"] = (every, hidden)
    shapes.update({"experts.U2": (every, width, rank), "experts.s2": (every, rank)})
    shapes.update({"experts.V2": (every, hidden, rank), "experts.b2": (every, width)})
    return shapes


def is_orthonormal(name):
    """Whether the columns of this parameter are kept orthonormal."""
    return name.endswith((".U1", ".V1", ".U2", ".V2", ".free_V1", ".router.basis"))


def buffer_shapes(config):
    """Only the statistics that the settings use; none for most routers with logits."""
    if config["moe.router"] == "bias_balanced":
        return {f"blocks.{b}.moe.router.bias": (config["moe.experts"],) for b in moe_blocks(config)}
    if config["moe.router"] != "ermoe":
        return {}
    width, experts = config["model.width"], config["moe.experts"]
    shapes = {}
    if config["moe.center"]:
        shapes["mean_x"] = (width,)
        if config["moe.score"] == "context_cosine":
            shapes["mean_c"] = (width,)
    if config["moe.standardize"]:
        shapes.update({"score_mean": (experts,), "score_var": (experts,)})
    if quantile_of(config) is not None:
        shapes["histogram"] = (HISTOGRAM_BINS,)
    if shapes:
        shapes["updates"] = (1,)
    return {f"blocks.{b}.moe.router.{name}": shape for b in moe_blocks(config) for name, shape in shapes.items()}


# The vision transformer

def sincos_positions(config):
    """(1, T, D): for each patch [sin y, cos y, sin x, cos x] of D/4 each; the class token has zeros."""
    side, quarter = config["model.image_size"] // config["model.patch"], config["model.width"] // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows = []
    for y in range(side):
        for x in range(side):
            rows.append(torch.cat([torch.sin(y * frequency), torch.cos(y * frequency),
                                   torch.sin(x * frequency), torch.cos(x * frequency)]))
    table = torch.stack(rows)
    if config["model.pool"] == "token":
        table = torch.cat([torch.zeros(1, config["model.width"], dtype=torch.float64), table])
    return table[None]


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def norm(p, name, x):
    return nnf.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], NORM_EPS)


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention(config, p, name, x):
    """x (B, T, D) -> after the output projection (B, T, D), and the attention averaged over heads (B, T, T)."""
    batch, tokens, width = x.shape
    heads = config["model.heads"]
    q, k, v = linear(p, f"{name}.qkv", x).reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    if config["model.qk_norm"]:
        q, k = norm(p, f"{name}.q_norm", q), norm(p, f"{name}.k_norm", k)
    share = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), dim=-1)  # (B, H, T, T)
    y = (share @ v).transpose(1, 2).reshape(batch, tokens, width)
    return linear(p, f"{name}.proj", y), share.mean(1)


def forward(config, p, buffers, images, allow=None, constants=None):
    """Logits (B, Y), the sum of the balance terms, and what each MoE block did: {block: trace}.

    `constants`: a trace of an earlier call, whose load thresholds are used again (finite differences need them fixed,
    since they carry no gradient).
    """
    x = nnf.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=config["model.patch"])
    x = x.flatten(2).transpose(1, 2)
    if config["model.pool"] == "token":
        x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + (p["pos_embed"] if config["model.positions"] == "learned" else sincos_positions(config))
    extra, traces = torch.zeros((), dtype=torch.float64), {}
    for block in range(config["model.depth"]):
        name = f"blocks.{block}"
        gamma = (lambda ls: p[f"{name}.{ls}.gamma"]) if config["model.layer_scale"] else (lambda ls: 1.0)
        tokens = norm(p, f"{name}.norm1", x)
        context, share = attention(config, p, f"{name}.attn", tokens)
        x = x + gamma("ls1") * context
        h = norm(p, f"{name}.norm2", x)
        adapter, mixed = config.get("moe.adapter", 0), config.get("moe.layer", "routed") == "cp"
        routed = block in moe_blocks(config) and not mixed
        if routed:
            if config["moe.context"] == "attention_mean":
                context = share @ tokens
            trace = traces[block] = {"load_threshold": constants[block]["load_threshold"] if constants else None}
        if routed and not adapter:
            y, balance = moe(config, p, buffers, f"{name}.moe", h, context, allow, trace)
            extra = extra + balance
        elif block in moe_blocks(config) and mixed:
            y = logit_rules.mixture_of_all(p, f"{name}.cp", h, gelu)
        else:
            y = linear(p, f"{name}.mlp.fc2", gelu(linear(p, f"{name}.mlp.fc1", h)))
        x = x + gamma("ls2") * y
        if routed and adapter:  # experts add to what the block made of the patches
            first = int(config["model.pool"] == "token")
            y, balance = moe(config, p, buffers, f"{name}.moe", x[:, first:], context[:, first:], allow, trace)
            extra = extra + balance
            x = x + config.get("moe.adapter_scale", 1.0) * torch.cat([0 * x[:, :first], y], dim=1)
    x = norm(p, "norm", x)[:, 0] if config["model.pool"] == "token" else norm(p, "fc_norm", x.mean(1))
    return linear(p, "head", x), extra, traces


def task_loss(config, logits, labels):
    """Mean over images of the class-weighted sum over classes; smoothing spreads over all classes."""
    classes, smoothing = logits.shape[1], config["loss.smoothing"]
    targets = nnf.one_hot(labels, classes).to(logits.dtype) * (1 - smoothing) + smoothing / classes
    weights = torch.tensor(config["loss.class_weights"] or [1.0] * classes, dtype=logits.dtype)
    if config["loss.kind"] == "sigmoid":
        terms = -(targets * nnf.logsigmoid(logits) + (1 - targets) * nnf.logsigmoid(-logits))
    else:
        terms = -targets * torch.log_softmax(logits, dim=1)
    return (terms * weights).sum(1).mean()


# The mixture of experts

def moe(config, p, buffers, name, h, context, allow, trace):
    """h, context (B, T, D) -> (B, T, D) and the balance terms. Fills `trace`."""
    batch, tokens, width = h.shape
    if config["moe.router"] == "soft":
        return soft_mixture(config, p, name, h, trace), torch.zeros((), dtype=torch.float64)
    x, c = h.reshape(-1, width), context.reshape(-1, width)
    if config["moe.router"] == "ermoe":
        ids, weights, s = route_by_basis(config, p, buffers, name, x, c, allow, trace)
        balance = added_losses(config, s, torch.softmax(s, dim=1), ids, None)
    elif config["moe.router"] == "bias_balanced":
        ids, weights, logits = route_by_bias(config, p, buffers, name, x, trace)
        balance = added_losses(config, logits, torch.softmax(logits, dim=1), ids, p[f"{name}.router.weight"])
    elif config["moe.router"] == "emoe":
        own = {key: p[f"{name}.router.{key}"] for key in ("basis", "mixing", "gamma", "bias")}
        logits = logit_rules.energy_logits(config, own, x)
        ids, weights, probabilities = route_by_softmax(config, logits, trace)
        balance = added_losses(config, logits, probabilities, ids, None)
    elif config["moe.router"] == "prototype":
        prototypes = p[f"{name}.router.prototypes"]
        logits = logit_rules.prototype_logits(config, prototypes, x)
        ids, weights, probabilities = route_by_softmax(config, logits, trace)
        balance = logit_rules.spectral_penalty(config, prototypes) + added_losses(config, None, probabilities, ids, None)
    elif config["moe.router"] == "learned_cosine":
        ids, weights, probabilities = route_by_embedding(config, p, name, x, trace)
        embeddings = nnf.normalize(p[f"{name}.router.embeddings"], dim=1)
        balance = added_losses(config, None, probabilities, ids, embeddings)
    elif config["moe.router"] == "expert_choice":
        ids, weights, logits = route_by_experts(config, p, name, x, tokens, trace)
        balance = added_losses(config, logits, None, ids, None)
    else:
        ids, weights, balance = route_by_logits(config, p[f"{name}.router.weight"], x, batch, trace)
    trace.update({"ids": ids, "weights": weights.detach()})
    outputs = expert_outputs(config, p, name, x)  # (N, E_all, D)
    chosen = outputs.gather(1, ids.clamp(min=0)[:, :, None].expand(-1, -1, width))
    if config.get("moe.orthogonal_output_weight", 0):
        balance = balance + config["moe.orthogonal_output_weight"] * output_overlap(chosen, ids >= 0)
    return (weights[:, :, None] * chosen).sum(1).reshape(batch, tokens, width), balance


def bases(config, p, name):
    """(E, D, R): the routing bases of the scored experts."""
    experts, rank = config["moe.experts"], config["moe.basis_rank"]
    if config["moe.basis"] == "leading":
        return p[f"{name}.experts.V1"][:experts, :, :rank]
    basis = p[f"{name}.router.basis"]
    if config["moe.basis"] == "disjoint":
        return torch.stack([basis[:, e * rank:(e + 1) * rank] for e in range(experts)])
    return basis


def expert_outputs(config, p, name, x):
    """Every expert on every token, (N, E_all, D): wasteful, and plain to read."""
    e = {key: p.get(f"{name}.experts.{key}") for key in ("U1", "s1", "V1", "free_V1", "U2", "s2", "V2", "W1", "W2")}
    if config["moe.expert"] == "plain":
        w1, w2 = e["W1"], e["W2"]
    else:
        v1 = e["V1"]
        if config["moe.router"] == "ermoe" and config["moe.basis"] == "disjoint":
            v1 = torch.cat([bases(config, p, name), v1], dim=2)
            v1 = v1 if e["free_V1"] is None else torch.cat([v1, e["free_V1"]])
        w1 = torch.einsum("efr,er,edr->efd", e["U1"], e["s1"], v1)
        w2 = torch.einsum("edr,er,efr->edf", e["U2"], e["s2"], e["V2"])
    hidden = gelu(torch.einsum("nd,efd->nef", x, w1) + p[f"{name}.experts.b1"])
    return torch.einsum("nef,edf->ned", hidden, w2) + p[f"{name}.experts.b2"]


def ratio(above, below_squared):
    """above / sqrt(below_squared), with value and gradient zero where the norm is."""
    some = below_squared > 0
    return torch.where(some, above, torch.zeros_like(above)) / torch.sqrt(
        torch.where(some, below_squared, torch.ones_like(below_squared)))


def scores(config, basis, x, c, mean_x, mean_c):
    """(N, E): the cosine of x and c inside each basis, or the share of x's norm that lies in it."""
    z = torch.einsum("nd,edr->ner", x - mean_x, basis)
    if config["moe.score"] == "subspace_cosine":
        inside = (z * z).sum(2)
        some = inside > 0
        length = torch.where(some, torch.sqrt(torch.where(some, inside, torch.ones_like(inside))), inside * 0)
        return ratio(length, ((x - mean_x) ** 2).sum(1, keepdim=True).expand_as(length))
    w = torch.einsum("nd,edr->ner", c - mean_c, basis)
    return ratio((z * w).sum(2), (z * z).sum(2) * (w * w).sum(2))


def route_by_basis(config, p, buffers, name, x, c, allow, trace):
    """Chosen experts (N, K), their weights (N, K), all scores (N, E). Reads the statistics, never writes them."""
    zero = torch.zeros(x.shape[1], dtype=torch.float64)
    read = lambda key: buffers.get(f"{name}.router.{key}")
    started = bool(read("updates") is not None and read("updates") > 0)
    mean_x = read("mean_x") if config["moe.center"] else zero
    mean_c = read("mean_c") if read("mean_c") is not None else zero
    s = scores(config, bases(config, p, name), x, c, mean_x, mean_c)
    order = s.detach()
    if config["moe.standardize"] and started:
        order = (order - read("score_mean")) / torch.sqrt(read("score_var") + SIGMA_EPS)
    threshold = threshold_value(config, read("histogram"), started)
    mask = torch.ones_like(s, dtype=torch.bool) if allow is None else allow.reshape(s.shape).bool()
    ids = select(config, s.detach(), order, threshold, mask)
    trace.update({"x": x.detach(), "c": c.detach(), "s": s.detach(), "order": order, "mask": mask,
                  "threshold": threshold})
    return ids, combine_weights(config, s, ids, threshold, p.get(f"{name}.router.temperature")), s


def threshold_value(config, histogram, started):
    """A number, the running quantile, or None where nothing is asked of a score."""
    text, share = config["moe.threshold"], quantile_of(config)
    if text == "none" or (share is not None and not started):
        return None
    if share is None:
        return float(text)
    target, below = share * float(histogram.sum()), 0.0
    for index, height in enumerate(histogram.tolist()):
        if height > 0 and below + height >= target:
            return -1.0 + (index + (target - below) / height) * 2.0 / HISTOGRAM_BINS
        below += height
    return 1.0


def select(config, s, order, threshold, mask):
    """(N, K) expert ids, -1 where nobody is to be had. Slots: the qualified by order, then the fallback."""
    experts, slots, free = config["moe.experts"], config["moe.top_k"], config["moe.free_experts"]
    rows = []
    for token in range(len(s)):
        allowed = [e for e in range(experts) if mask[token, e]]
        allowed.sort(key=lambda e: (-float(order[token, e]), e))
        qualified = [e for e in allowed if threshold is None or float(s[token, e]) > threshold]
        row = qualified[:slots]
        if free:
            spare = [experts + (token + i) % free for i in range(free)]
        else:
            spare = [e for e in allowed if e not in qualified]
        row = (row + spare)[:slots]
        rows.append(row + [-1] * (slots - len(row)))
    return torch.tensor(rows, dtype=torch.int64)


def combine_weights(config, s, ids, threshold, temperature):
    """(N, K): a free expert enters with the threshold as its score (0 without one); a missing slot weighs 0."""
    free = torch.full((len(s), config["moe.free_experts"]), threshold or 0.0, dtype=s.dtype)
    every = torch.cat([s, free], dim=1)
    chosen = every.gather(1, ids.clamp(min=0))
    filled = ids >= 0
    if config["moe.combine"] == "raw":
        return chosen * filled
    if config["moe.combine"] == "share":
        return torch.softmax(every * torch.exp(temperature), dim=1).gather(1, ids.clamp(min=0)) * filled
    if config["moe.combine"] == "softmax":
        return torch.softmax((chosen * torch.exp(temperature)).masked_fill(~filled, -math.inf), dim=1)
    floored = chosen.clamp(min=WEIGHT_FLOOR) * filled
    return floored / floored.sum(1, keepdim=True).clamp(min=WEIGHT_FLOOR / 2)  # 0 for a token that nobody takes


def route_by_logits(config, weight, x, batch, trace):
    """linear, vmoe, switch_lbl: the K largest of softmax(x Wᵀ), not renormalised, and the router's balance terms."""
    experts, slots = config["moe.experts"], config["moe.top_k"]
    logits = x @ weight.T
    p = torch.softmax(logits, dim=1)
    free_of_rules = dict(config, **{"moe.free_experts": 0})
    ids = select(free_of_rules, logits.detach(), logits.detach(), None, torch.ones_like(p, dtype=torch.bool))
    trace.update({"s": logits.detach(), "order": logits.detach(), "mask": None, "threshold": None})
    balance = torch.zeros((), dtype=torch.float64)
    if config["moe.router"] == "vmoe":
        if trace["load_threshold"] is None:
            trace["load_threshold"] = logits.detach().topk(slots, dim=1).values[:, -1:]
        win = 0.5 * (1 + torch.erf((logits - trace["load_threshold"]) * experts / math.sqrt(2)))  # sigma is 1/E
        size = config["moe.group_images"] * (len(x) // batch)
        importance = [cv_squared(group.sum(0)) for group in p.split(size)]
        load = [cv_squared(group.mean(0)) for group in win.split(size)]
        balance = (config["moe.importance_weight"] * torch.stack(importance).mean()
                   + config["moe.load_weight"] * torch.stack(load).mean())
    if config["moe.router"] == "vmoe" and config["moe.capacity_train"] > 0:
        ids = logit_rules.within_capacity(config, p.detach(), ids, trace)
    if config["moe.router"] == "linear":
        balance = added_losses(config, logits, p, ids, weight)
    if config["moe.router"] == "switch_lbl":
        balance = config["moe.balance_weight"] * switch_balance(p, ids)
        balance = balance + config["moe.z_weight"] * (torch.logsumexp(logits, dim=1) ** 2).mean()
    return ids, p.gather(1, ids.clamp(min=0)) * (ids >= 0), balance


def best_of(config, order):
    """(N, K): the K largest of each row, by nothing else."""
    bare = dict(config, **{"moe.free_experts": 0})
    return select(bare, order, order, None, torch.ones_like(order, dtype=torch.bool))


def route_by_bias(config, p, buffers, name, x, trace):
    """bias_balanced: gate and bias choose, the gate alone weighs. Chosen experts, weights, logits (N, E)."""
    logits = x @ p[f"{name}.router.weight"].T
    gates = torch.sigmoid(logits) if config["moe.gate"] == "sigmoid" else torch.softmax(logits, dim=1)
    order = gates.detach() + buffers[f"{name}.router.bias"]
    trace.update({"s": gates.detach(), "order": order, "mask": None, "threshold": None})
    ids = best_of(config, order)
    return ids, gates.gather(1, ids), logits


def route_by_embedding(config, p, name, x, trace):
    """learned_cosine: softmax over all experts of cosines between a projected token and embeddings, times a learned
    factor of at most 100. Chosen experts, weights, probabilities (N, E)."""
    s = nnf.cosine_similarity((x @ p[f"{name}.router.projection"].T)[:, None], p[f"{name}.router.embeddings"][None], dim=2)
    trace.update({"s": s.detach(), "order": s.detach(), "mask": None, "threshold": None})
    ids = best_of(config, s.detach())
    probabilities = torch.softmax(s * torch.exp(p[f"{name}.router.temperature"]).clamp(max=100), dim=1)
    return ids, probabilities.gather(1, ids), probabilities


def route_by_softmax(config, logits, trace):
    """The K largest logits. Chosen experts, weights and probabilities."""
    trace.update({"s": logits.detach(), "order": logits.detach(), "mask": None, "threshold": None})
    ids, probabilities = best_of(config, logits.detach()), torch.softmax(logits, dim=1)
    return ids, probabilities.gather(1, ids), probabilities


def route_by_experts(config, p, name, x, tokens, trace):
    """expert_choice: of a group of n tokens each expert takes the K n / E (rounded up) with its largest probabilities.
    A token's experts (N, E), the likeliest first, -1 behind them; their probabilities; logits (N, E)."""
    experts = config["moe.experts"]
    logits = x @ p[f"{name}.router.weight"].T
    probabilities = torch.softmax(logits, dim=1)
    group = config.get("moe.choice_images", 0) * tokens or len(x)
    takers, cuts = [[] for _ in x], []
    for first in range(0, len(x), group):
        of_group = range(first, min(first + group, len(x)))
        for e in range(experts):
            ranked = sorted(of_group, key=lambda n: (-float(probabilities[n, e].detach()), n))
            count = math.ceil(config["moe.top_k"] * len(of_group) / experts)
            for n in ranked[:count]:
                takers[n].append(e)
            cuts += [probabilities[a, e] - probabilities[b, e] for a, b in zip(ranked[count - 1:count], ranked[count:])]
    rows = [sorted(own, key=lambda e: (-float(probabilities[n, e].detach()), e)) for n, own in enumerate(takers)]
    ids = torch.tensor([row + [-1] * (experts - len(row)) for row in rows], dtype=torch.int64)
    s = probabilities.detach()
    trace.update({"s": s, "order": s, "mask": None, "threshold": None})
    trace["cuts"] = torch.tensor([float(cut) for cut in cuts], dtype=torch.float64)
    return ids, probabilities.gather(1, ids.clamp(min=0)) * (ids >= 0), logits


def soft_mixture(config, p, name, h, trace):
    """soft: slots see means of an image's tokens, tokens get means of all slots' outputs. h (B, T, D) -> (B, T, D).
    `ids` and `weights` of the trace are every token's experts by their share in its output, the heaviest first."""
    batch, tokens, width = h.shape
    experts, slots = config["moe.experts"], slots_of(config)
    unit = lambda v: v / torch.sqrt((v * v).sum(-1, keepdim=True)).clamp(min=1e-6)
    logits = unit(h) @ (p[f"{name}.router.scale"] * unit(p[f"{name}.router.phi"])).T  # (B, T, S)
    dispatch, combine = torch.softmax(logits, dim=1), torch.softmax(logits, dim=2)
    seen = dispatch.transpose(1, 2) @ h  # (B, S, D)
    made = expert_outputs(config, p, name, seen.reshape(-1, width)).reshape(batch, slots, experts, experts, width)
    own = torch.stack([made[:, :, e, e] for e in range(experts)], dim=2)  # slot (i, e) by expert e
    y = combine @ own.reshape(batch, slots * experts, width)
    share = combine.detach().reshape(batch * tokens, slots, experts).sum(1)
    ids = torch.tensor([sorted(range(experts), key=lambda e: (-float(row[e]), e)) for row in share], dtype=torch.int64)
    trace.update({"ids": ids, "weights": share.gather(1, ids), "s": share, "order": share, "mask": None, "threshold": None})
    return y


def switch_balance(probabilities, ids):
    """E times the sum over experts of their share of the slots and their mean probability."""
    experts = probabilities.shape[1]
    share = torch.bincount(ids.flatten(), minlength=experts).double() / ids.numel()
    return experts * (share * probabilities.mean(0)).sum()


def output_overlap(chosen, filled):
    """Mean over tokens of what the outputs (N, K, D) of a token's experts have in common: the sum over ordered pairs of
    the product of one with its projection on the other."""
    total = torch.zeros((), dtype=torch.float64)
    for j in range(chosen.shape[1]):
        for k in range(chosen.shape[1]):
            if j != k:
                y, other, there = chosen[:, j], chosen[:, k], filled[:, j] & filled[:, k]
                projection = ((y * other).sum(1) / ((other * other).sum(1) + OVERLAP_EPS))[:, None] * other
                total = total + ((y * projection).sum(1) * there).mean()
    return total


def added_losses(config, logits, probabilities, ids, matrix):
    """The losses of the routing that may go beside any router. `matrix` (E, P): a row an expert, where there is one."""
    loss = torch.zeros((), dtype=torch.float64)
    if config.get("moe.extra_balance", 0):
        loss = loss + config["moe.extra_balance"] * switch_balance(probabilities, ids)
    if config["moe.z_weight"]:
        loss = loss + config["moe.z_weight"] * (torch.logsumexp(logits, dim=1) ** 2).mean()
    if config.get("moe.simbal_weight", 0):
        apart = matrix @ matrix.T - torch.eye(len(matrix), dtype=torch.float64)
        loss = loss + config["moe.simbal_weight"] * apart.abs().sum()
    if config.get("moe.variance_weight", 0):
        loss = loss - config["moe.variance_weight"] * ((probabilities - probabilities.mean(0)) ** 2).mean(0).sum()
    return loss


def cv_squared(v):
    """Squared coefficient of variation over the experts, with the population variance."""
    return ((v - v.mean()) ** 2).mean() / (v.mean() ** 2 + CV_EPS)
