"""Checkpoints of this engine as PyTorch modules, in one file that needs nothing but PyTorch.

    import ermoe_torch
    model = ermoe_torch.load("runs/cifar10")          # a run folder, or one of its checkpoints/step-N
    logits = model(model.normalise(images))           # images (B, C, S, S) in [0, 1]
    for block, routing in model.routing.items():      # of this call: chosen experts, their weights, all scores
        print(block, routing.ids.shape, routing.weights.shape, routing.scores.shape)

    model = ermoe_torch.load("runs/flickr8k")         # of images and captions: two towers
    logits = model(model.normalise(images), model.tokenizer(["a dog", "a beach"]))  # cosines times their scale (B, captions)
    features = model.image_features(images), model.text_features(tokens)            # (B, P), each of length 1
    model.image.routing, model.text.routing

`model` is a plain nn.Module in eval mode: its parameters have the names of the file (timm's, where timm has such), so that
`model.load_state_dict`, optimizers and `save` work as usual. It computes what the engine computes in float32, and routes as the
engine does at evaluation: no dropout, no noise, statistics that stay as they are. Nothing of the engine is needed or used.

The file in order: reading files, settings, layers, routers, experts, the vision transformer, two towers, captions, load and save.
docs/python.md
"""

import dataclasses
import json
import math
import os
import struct
import sys
import unicodedata
from html import unescape

import torch
from torch import nn
from torch.nn import functional as nnf

SIGMA_EPS = 1e-6  # inside the root of a score's deviation
WEIGHT_FLOOR = 1e-3  # of a score in combine "normalized"
SHORTEST = 1e-12  # norm below which a vector has no direction
FORMAT = 1  # of state.json


class CannotLoad(ValueError):
    """Something that this file cannot load; the sentence says what."""


# Files

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}


def read_safetensors(path):
    """Name -> tensor, and the file's metadata."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise CannotLoad(f"{path}: {name} is {entry['dtype']}, which PyTorch has no type for")
        begin, end = entry["data_offsets"]
        flat = torch.empty(0, dtype=DTYPES[entry["dtype"]])
        if end > begin:
            flat = torch.frombuffer(data, dtype=flat.dtype, offset=begin, count=(end - begin) // flat.element_size()).clone()
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


def save_safetensors(tensors, path, metadata=None):
    """Writes name -> tensor as a safetensors file, as `ermoe-train --init` reads it."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, chunks, offset = {"__metadata__": dict(metadata or {"format": "pt"})}, [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        tensor = tensor.detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(raw)]}
        chunks.append(raw)
        offset += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def checkpoint_folder(path):
    """The folder of a checkpoint: the one given, or a run's best one, or its latest."""
    if os.path.exists(os.path.join(path, "state.json")):
        return path
    for name in ("best", "latest"):
        pointer = os.path.join(path, "checkpoints", name)
        if os.path.exists(pointer):
            with open(pointer) as file:
                return os.path.join(path, "checkpoints", file.read().strip())
    raise CannotLoad(f"{path}: neither a run folder nor a checkpoint")


# Settings

# What a config that is older than a setting means; the names are those of `ermoe-train --help`.
DEFAULTS = {
    "model": {"dimensions": 2, "volume": [], "patch_margin": 0, "mlp_ratio": 4.0, "pool": "token", "positions": "learned",
              "qk_norm": False, "layer_scale": 0.0, "center_input": False, "pre_norm": False, "activation": "gelu", "norm_eps": 1e-6,
              "patch_bias": "on"},
    "moe": {"layers": "every:2", "router": "ermoe", "expert": "eigen", "experts": 8, "top_k": 2, "hidden": 0, "rank": 0,
            "orthogonality": "newton_schulz", "basis": "leading", "basis_rank": 0, "score": "context_cosine",
            "context": "attention", "center": True, "standardize": True, "threshold": "none", "free_experts": 0,
            "regions": "", "region_share": 0.1, "combine": "normalized", "capacity_eval": 0.0, "gate": "sigmoid",
            "cosine_width": 256, "soft_slots": 0, "choice_images": 0, "replicas": 0, "layer": "routed", "cp_rank": 0,
            "prioritized": False, "emoe_rank": 128, "emoe_temperature": 1.0, "adapter": 0, "adapter_scale": 1.0,
            "prototype_temperature": 0.1},
    "text": {"depth": 0, "mlp_ratio": 4.0, "moe_layers": "none"},
    "retrieval": {"projection": 512, "loss": "info_nce"},
}


class Settings:
    """The settings of a tower as attributes, those left open resolved: `s.width`, `s.moe.router`."""

    causal = False  # whether a token sees what comes after it

    def __init__(self, config):
        self.__dict__.update({**DEFAULTS["model"], **config["model"]})
        self.sides = list(self.volume) or [self.image_size] * self.dimensions
        self.grid = [side // self.patch for side in self.sides]
        self.patches = math.prod(self.grid)
        self.prefix = int(self.pool == "token")
        self.tokens = self.prefix + self.patches
        self.add_experts({**DEFAULTS["moe"], **config.get("moe", {})})

    def add_experts(self, moe):
        self.moe = type("Moe", (), moe)()
        self.blocks_with_experts = self.expert_blocks()
        self.resolve_experts()

    def expert_blocks(self):
        text, depth = self.moe.layers, self.depth
        if text == "none":
            return []
        kind, _, count = text.partition(":")
        if kind == "every":
            return [i for i in range(depth) if (i + 1) % int(count) == 0]
        if kind == "last":
            return list(range(depth - int(count), depth))
        return [int(i) for i in text.split(",")]

    def resolve_experts(self):
        moe, width = self.moe, self.width
        moe.hidden = moe.adapter or moe.hidden or 4 * width
        moe.rank = moe.rank or min(moe.hidden, width)
        eighth = max(8, (width + 32) // 64 * 8)
        usual = width // moe.experts if moe.basis == "disjoint" else eighth
        moe.basis_rank = moe.basis_rank or min(usual, moe.rank, width - 1)
        moe.tokens = self.patches if moe.adapter else self.tokens
        moe.soft_slots = moe.soft_slots or max(1, -(-moe.top_k * moe.tokens // moe.experts))
        moe.cp_rank = moe.cp_rank or max(1, moe.top_k * width * moe.hidden // (width + moe.hidden))
        moe.all = moe.experts + moe.free_experts + moe.replicas


class TextSettings(Settings):
    """Those of a text tower, which shares with the image tower what it does not say itself."""

    causal, qk_norm, layer_scale, prefix = True, False, 0.0, 0

    def __init__(self, config):
        text, image = {**DEFAULTS["text"], **config["text"]}, Settings(config)
        self.__dict__.update(text)
        self.activation, self.norm_eps, self.patches, self.tokens = image.activation, image.norm_eps, text["context"], text["context"]
        self.add_experts({**DEFAULTS["moe"], **config.get("moe", {}), "layers": text["moe_layers"]})


# Layers

ACTIVATIONS = {"gelu": nnf.gelu, "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)}


@dataclasses.dataclass
class Routing:
    """What one layer with experts did in one call; T counts the tokens that are routed."""
    ids: torch.Tensor  # (B, T, K) experts, -1 where nobody fills the slot; ids from E on are free experts, then replicas
    weights: torch.Tensor  # (B, T, K)
    scores: torch.Tensor  # (B, T, E) of the router


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads, self.causal, size = s.heads, s.causal, s.width // s.heads
        self.qkv, self.proj = nn.Linear(s.width, 3 * s.width), nn.Linear(s.width, s.width)
        self.q_norm = nn.LayerNorm(size, eps=s.norm_eps) if s.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(size, eps=s.norm_eps) if s.qk_norm else nn.Identity()

    def forward(self, x):
        """x (B, T, D) -> (B, T, D), and the attention (B, H, T, T)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        if self.causal:
            scores = scores + torch.full_like(scores[0, 0], -math.inf).triu(1)
        share = torch.softmax(scores, dim=-1)
        return self.proj((share @ v).transpose(1, 2).reshape(batch, tokens, width)), share


class Mlp(nn.Module):
    def __init__(self, s):
        super().__init__()
        hidden = int(s.mlp_ratio * s.width)
        self.fc1, self.fc2, self.activation = nn.Linear(s.width, hidden), nn.Linear(hidden, s.width), ACTIVATIONS[s.activation]

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x * self.gamma


class CpFactors(nn.Module):
    def __init__(self, experts, inner, outer, rank):
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(rank, experts))
        self.down, self.up = nn.Linear(inner, rank), nn.Linear(rank, outer, bias=False)

    def forward(self, x, shares):
        return self.up((shares @ self.mix.T) * self.down(x))


class CpLayer(nn.Module):
    """All experts mixed by a factored tensor (moe.layer cp): nothing is routed."""

    def __init__(self, s):
        super().__init__()
        moe = s.moe
        self.gate = nn.Parameter(torch.zeros(moe.experts, s.width))
        self.fc1 = CpFactors(moe.experts, s.width, moe.hidden, moe.cp_rank)
        self.fc2 = CpFactors(moe.experts, moe.hidden, s.width, moe.cp_rank)

    def forward(self, x):
        shares = torch.softmax(x @ self.gate.T, dim=-1)
        return self.fc2(nnf.gelu(self.fc1(x, shares)), shares)


# Routers. Each takes x, c (B·T, D), the number of images and a mask (B·T, E) or None, and gives ids, weights (B·T, K) and scores
# (B·T, E).

def unit(x, shortest=SHORTEST):
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=shortest)


def ratio(above, below):
    """above / below, 0 where below is."""
    return torch.where(below > 0, above / torch.where(below > 0, below, torch.ones_like(below)), torch.zeros_like(above))


def gather(values, ids):
    """values (N, E) at ids (N, K); 0 where an id is -1."""
    return values.gather(1, ids.clamp(min=0)) * (ids >= 0)


def select(order, slots, qualified, allow, free=0):
    """(N, K): the best qualified by order, ties to the lower id; then free experts, where there are some, else the best others."""
    tokens, experts = order.shape
    if slots > experts:
        order = nnf.pad(order, (0, slots - experts))
        qualified, allow = (nnf.pad(mask, (0, slots - experts)) for mask in (qualified, allow))
    rank = torch.where(allow, torch.where(qualified, 0, 1), 2)  # qualified first, then the rest, the forbidden last
    ids = torch.sort(order, dim=1, descending=True, stable=True).indices
    ids = ids.gather(1, torch.sort(rank.gather(1, ids), dim=1, stable=True).indices)[:, :slots]
    place = rank.gather(1, ids)
    if not free:
        return ids.masked_fill(place == 2, -1)
    number = torch.arange(slots, device=order.device)[None] - (place == 0).sum(1, keepdim=True)  # of a slot among the fallback's
    spare = experts + (torch.arange(tokens, device=order.device)[:, None] + number) % free
    spare = spare.masked_fill(number >= free, -1)
    return torch.where(place == 0, ids, spare.to(ids))


def best_of(order, slots, allow):
    everything = torch.ones_like(order, dtype=torch.bool)
    return select(order, slots, everything, everything if allow is None else allow)


class Router(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.moe = s.moe

    def matrix(self, *shape):
        return nn.Parameter(torch.zeros(shape))


class ErmoeRouter(Router):
    """Cosine of a token and its context inside an expert's own basis, or the share of the token in it."""

    def __init__(self, s):
        super().__init__(s)
        moe, width = s.moe, s.width
        if moe.basis == "disjoint":
            self.basis = self.matrix(width, moe.experts * moe.basis_rank)
        if moe.basis == "untied":
            self.basis = self.matrix(moe.experts, width, moe.basis_rank)
        if moe.combine in ("softmax", "share"):
            self.temperature = self.matrix(1)
        sizes = {"mean_x": width, "mean_c": width, "score_mean": moe.experts, "score_var": moe.experts, "histogram": 4096, "updates": 1}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))

    def bases(self, experts):
        """(E, D, R)."""
        moe = self.moe
        if moe.basis == "leading":
            return experts.V1[:moe.experts, :, :moe.basis_rank]
        if moe.basis == "untied":
            return self.basis
        return self.basis.reshape(-1, moe.experts, moe.basis_rank).transpose(0, 1)

    def threshold(self):
        """A number; -infinity before there are statistics; None where nothing is asked of a score."""
        text = self.moe.threshold
        if text == "none":
            return None
        if not text.startswith("quantile:"):
            return float(text)
        heights = self.histogram.double().tolist()
        target, below = float(text[9:]) * sum(heights), 0.0
        if sum(heights) == 0:
            return -math.inf
        for index, height in enumerate(heights):
            if height > 0 and below + height >= target:
                return -1 + 2 * (index + (target - below) / height) / len(heights)
            below += height
        return 1.0

    def scores(self, x, c, bases):
        x = x - self.mean_x if self.moe.center else x
        z = torch.einsum("nd,edr->ner", x, bases)
        if self.moe.score == "subspace_cosine":
            return ratio(torch.linalg.vector_norm(z, dim=2), torch.linalg.vector_norm(x, dim=1, keepdim=True).expand(-1, len(bases)))
        w = torch.einsum("nd,edr->ner", c - self.mean_c if self.moe.center else c, bases)
        return ratio((z * w).sum(2), torch.linalg.vector_norm(z, dim=2) * torch.linalg.vector_norm(w, dim=2))

    def forward(self, x, c, images, allow, experts):
        moe, s = self.moe, self.scores(x, c, self.bases(experts))
        order = (s - self.score_mean) / torch.sqrt(self.score_var + SIGMA_EPS) if moe.standardize and self.updates > 0 else s
        threshold = self.threshold()
        qualified = torch.ones_like(s, dtype=torch.bool) if threshold is None else s > threshold
        ids = select(order, moe.top_k, qualified, torch.ones_like(qualified) if allow is None else allow, moe.free_experts)
        return ids, self.combine(s, ids, threshold), s

    def combine(self, s, ids, threshold):
        """A free expert enters with the threshold as its score."""
        stand_in = 0.0 if threshold is None or math.isinf(threshold) else threshold
        every = nnf.pad(s, (0, self.moe.free_experts), value=stand_in)
        if self.moe.combine == "share":
            return gather(torch.softmax(every * torch.exp(self.temperature), dim=1), ids)
        chosen = gather(every, ids)
        if self.moe.combine == "raw":
            return chosen
        if self.moe.combine == "softmax":
            logits = (chosen * torch.exp(self.temperature)).masked_fill(ids < 0, -math.inf)
            return torch.nan_to_num(torch.softmax(logits, dim=1))  # a token without any expert
        floored = chosen.clamp(min=WEIGHT_FLOOR) * (ids >= 0)
        return ratio(floored, floored.sum(1, keepdim=True).expand_as(floored))


class LinearRouter(Router):
    """linear, vmoe, switch_lbl: the K largest of softmax(x Wᵀ), not renormalised; vmoe may have a capacity."""

    def __init__(self, s):
        super().__init__(s)
        self.weight = self.matrix(s.moe.experts, s.width)

    def forward(self, x, c, images, allow, experts):
        moe, logits = self.moe, x @ self.weight.T
        p = torch.softmax(logits, dim=1)
        ids = best_of(logits, moe.top_k, allow)
        if moe.router == "vmoe" and moe.capacity_eval > 0:
            ids = self.within_capacity(p, ids)
        return ids, gather(p, ids), p

    def within_capacity(self, p, ids):
        """First choices of all tokens come before second ones; among them tokens as they stand, or by their largest weight."""
        moe = self.moe
        capacity = math.ceil(ids.numel() * moe.capacity_eval / moe.experts)
        order = torch.arange(len(ids), device=ids.device)
        if moe.prioritized:
            order = torch.sort(gather(p, ids).max(dim=1).values, descending=True, stable=True).indices
        claims = ids[order].T.flatten()  # in the order in which experts see them
        filled = claims >= 0
        number = nnf.one_hot(claims.clamp(min=0), moe.experts) * filled[:, None]
        taken = (number.cumsum(0) * number).sum(1)
        kept = torch.empty_like(ids)
        kept[order] = claims.masked_fill(taken > capacity, -1).reshape(ids.shape[1], -1).T
        return kept


class BiasBalancedRouter(Router):
    """Gates plus a bias choose, the gates alone weigh."""

    def __init__(self, s):
        super().__init__(s)
        self.weight = self.matrix(s.moe.experts, s.width)
        self.register_buffer("bias", torch.zeros(s.moe.experts))

    def forward(self, x, c, images, allow, experts):
        logits = x @ self.weight.T
        gates = torch.sigmoid(logits) if self.moe.gate == "sigmoid" else torch.softmax(logits, dim=1)
        ids = best_of(gates + self.bias, self.moe.top_k, allow)
        return ids, gather(gates, ids), gates


class LearnedCosineRouter(Router):
    def __init__(self, s):
        super().__init__(s)
        self.projection = self.matrix(s.moe.cosine_width, s.width)
        self.embeddings = self.matrix(s.moe.experts, s.moe.cosine_width)
        self.temperature = self.matrix(1)

    def forward(self, x, c, images, allow, experts):
        s = unit(x @ self.projection.T) @ unit(self.embeddings).T
        ids = best_of(s, self.moe.top_k, allow)
        return ids, gather(torch.softmax(s * torch.exp(self.temperature).clamp(max=100), dim=1), ids), s


class EmoeRouter(Router):
    """Shares of a token's energy along the axes of one orthonormal basis."""

    def __init__(self, s):
        super().__init__(s)
        rank = min(s.moe.emoe_rank, s.width)
        self.basis, self.mixing = self.matrix(s.width, rank), self.matrix(rank, s.moe.experts)
        self.gamma, self.bias = self.matrix(rank), self.matrix(s.moe.experts)

    def forward(self, x, c, images, allow, experts):
        energy = (x @ self.basis) ** 2
        shares = energy / (energy.sum(1, keepdim=True) + 1e-6)
        logits = ((shares * self.gamma) @ torch.softmax(self.mixing, dim=1) + self.bias) / self.moe.emoe_temperature
        ids, p = best_of(logits, self.moe.top_k, allow), torch.softmax(logits, dim=1)
        return ids, gather(p, ids), p


class PrototypeRouter(Router):
    def __init__(self, s):
        super().__init__(s)
        self.prototypes = self.matrix(s.moe.experts, s.width)

    def forward(self, x, c, images, allow, experts):
        cosines = unit(x) @ unit(self.prototypes).T
        ids = best_of(cosines, self.moe.top_k, allow)
        return ids, gather(torch.softmax(cosines / self.moe.prototype_temperature, dim=1), ids), cosines


class ExpertChoiceRouter(Router):
    """Of each group of tokens an expert takes those with its largest probabilities."""

    def __init__(self, s):
        super().__init__(s)
        self.weight = self.matrix(s.moe.experts, s.width)

    def forward(self, x, c, images, allow, experts):
        moe, p = self.moe, torch.softmax(x @ self.weight.T, dim=1)
        group = moe.choice_images * (len(x) // images) or len(x)
        taken = torch.zeros_like(p, dtype=torch.bool)
        for first in range(0, len(x), group):
            part = p[first:first + group]
            count = -(-moe.top_k * len(part) // moe.experts)
            best = torch.sort(part, dim=0, descending=True, stable=True).indices[:count]
            taken[first:first + group].scatter_(0, best, torch.ones_like(best, dtype=torch.bool))
        taken = taken if allow is None else taken & allow
        ids = select(p, moe.experts, torch.ones_like(taken), taken)
        return ids, gather(p, ids), p


class SoftRouter(Router):
    """Nothing is chosen: slots see means of tokens, tokens get means of slots. Its layer asks for both mixtures."""

    def __init__(self, s):
        super().__init__(s)
        self.phi, self.scale = self.matrix(s.moe.experts * s.moe.soft_slots, s.width), self.matrix(1)

    def mixtures(self, x):
        """x (B, T, D) -> dispatch and combine (B, T, S)."""
        logits = unit(x, 1e-6) @ (self.scale * unit(self.phi, 1e-6)).T
        return torch.softmax(logits, dim=1), torch.softmax(logits, dim=2)


ROUTERS = {"ermoe": ErmoeRouter, "linear": LinearRouter, "vmoe": LinearRouter, "switch_lbl": LinearRouter,
           "bias_balanced": BiasBalancedRouter, "learned_cosine": LearnedCosineRouter, "emoe": EmoeRouter,
           "prototype": PrototypeRouter, "soft": SoftRouter, "expert_choice": ExpertChoiceRouter}


# Experts

class Experts(nn.Module):
    """Two-layer GELU networks: W1, W2 themselves, or W = U diag(s) Vᵀ with orthonormal U and V."""

    def __init__(self, s):
        super().__init__()
        moe, width = s.moe, s.width
        every, hidden, rank = moe.all, moe.hidden, moe.rank
        self.eigen = moe.expert == "eigen"
        self.shared = self.eigen and moe.router == "ermoe" and moe.basis == "disjoint"
        shapes = {"b1": (every, hidden), "b2": (every, width)}
        if self.eigen:
            shapes.update(U1=(every, hidden, rank), s1=(every, rank), V1=(every, width, rank))
            shapes.update(U2=(every, width, rank), s2=(every, rank), V2=(every, hidden, rank))
        else:
            shapes.update(W1=(every, hidden, width), W2=(every, width, hidden))
        if self.shared:  # the first columns of a scored expert's V1 are the router's
            shapes["V1"] = (moe.experts, width, rank - moe.basis_rank)
            if moe.free_experts:
                shapes["free_V1"] = (moe.free_experts, width, rank)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def matrices(self, router):
        """W1 (E, F, D) and W2 (E, D, F)."""
        if not self.eigen:
            return self.W1, self.W2
        v1 = self.V1
        if self.shared:
            v1 = torch.cat([router.bases(self), v1], dim=2)
            v1 = torch.cat([v1, self.free_V1]) if hasattr(self, "free_V1") else v1
        return (self.U1 * self.s1[:, None]) @ v1.transpose(1, 2), (self.U2 * self.s2[:, None]) @ self.V2.transpose(1, 2)

    def run(self, expert, x, w1, w2):
        return nnf.linear(nnf.gelu(nnf.linear(x, w1[expert], self.b1[expert])), w2[expert], self.b2[expert])


class MoeLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.moe = s.moe
        self.router, self.experts = ROUTERS[s.moe.router](s), Experts(s)
        if s.moe.replicas:
            self.register_buffer("replica_of", torch.zeros(s.moe.replicas))

    def forward(self, x, c, allow):
        """x, c (B, T, D) -> (B, T, D), and what was routed where."""
        if self.moe.router == "soft":
            return self.mix(x)
        batch, tokens, width = x.shape
        flat = x.reshape(-1, width)
        ids, weight, scores = self.router(flat, c.reshape(-1, width), batch, allow, self.experts)
        ids = self.with_replicas(ids, tokens)
        w1, w2 = self.experts.matrices(self.router)
        y = torch.zeros_like(flat)
        for expert in range(len(w1)):
            token, slot = torch.nonzero(ids == expert, as_tuple=True)
            if len(token):
                y = y.index_add(0, token, weight[token, slot, None] * self.experts.run(expert, flat[token], w1, w2))
        return y.reshape(x.shape), Routing(*(t.reshape(batch, tokens, -1) for t in (ids, weight, scores)))

    def mix(self, x):
        moe, (dispatch, combine) = self.moe, self.router.mixtures(x)
        seen = (dispatch.transpose(1, 2) @ x).unflatten(1, (moe.soft_slots, moe.experts))  # slot s is expert s mod E's
        w1, w2 = self.experts.matrices(self.router)
        made = torch.stack([self.experts.run(e, seen[:, :, e], w1, w2) for e in range(moe.experts)], dim=2)
        share = combine.unflatten(2, (moe.soft_slots, moe.experts)).sum(2)  # (B, T, E)
        order = torch.sort(share, dim=2, descending=True, stable=True)
        return combine @ made.flatten(1, 2), Routing(order.indices, order.values, share)

    def with_replicas(self, ids, tokens):
        """A replica takes its expert's tokens whose number in the image has an odd number of ones in binary."""
        if not self.moe.replicas:
            return ids
        odd = torch.tensor([bin(n % tokens).count("1") % 2 == 1 for n in range(len(ids))], device=ids.device)[:, None]
        shared = ids
        for r in reversed(range(self.moe.replicas)):  # the first of several copies takes
            shared = torch.where(odd & (ids == int(self.replica_of[r])), self.moe.experts + self.moe.free_experts + r, shared)
        return shared


# The vision transformer

class Block(nn.Module):
    def __init__(self, s, with_experts):
        super().__init__()
        self.s = s
        norm = lambda: nn.LayerNorm(s.width, eps=s.norm_eps)
        scale = lambda: LayerScale(s.width) if s.layer_scale else nn.Identity()
        self.norm1, self.attn, self.ls1, self.norm2, self.ls2 = norm(), Attention(s), scale(), norm(), scale()
        if with_experts and s.moe.layer == "cp":
            self.cp = CpLayer(s)
        elif with_experts:
            self.moe = MoeLayer(s)
        if not with_experts or s.moe.adapter:
            self.mlp = Mlp(s)

    def forward(self, x, allow):
        """x (B, T, D) -> (B, T, D), and the routing, or None."""
        tokens = self.norm1(x)
        context, share = self.attn(tokens)
        x = x + self.ls1(context)
        normed = self.norm2(x)
        if self.s.moe.context == "attention_mean":
            context = share.mean(1) @ tokens
        routing = None
        if hasattr(self, "mlp"):
            y = self.mlp(normed)
        elif hasattr(self, "cp"):
            y = self.cp(normed)
        else:
            y, routing = self.moe(normed, context, allow)
        x = x + self.ls2(y)
        if hasattr(self, "mlp") and hasattr(self, "moe"):  # experts beside the dense network see the patches alone
            first = self.s.prefix
            y, routing = self.moe(x[:, first:], context[:, first:], allow)
            x = torch.cat([x[:, :first], x[:, first:] + self.s.moe.adapter_scale * y], dim=1)
        return x, routing


def blocks_of(s):
    return nn.ModuleList(Block(s, i in s.blocks_with_experts) for i in range(s.depth))


def run_blocks(blocks, x, allow):
    """x (B, T, D) -> (B, T, D), and {block: Routing}."""
    routes = {}
    for i, block in enumerate(blocks):
        x, routing = block(x, allow)
        if routing is not None:
            routes[i] = routing
    return x, routes


class VisionTransformer(nn.Module):
    """images (B, C, S, S), normalised, or volumes (B, C, S, S, S) -> logits (B, Y). After a call `routing` has what each block with
    routed experts did: {block: Routing}. `allow` (B·T, E): which experts a token may go to, for models with regions; region_mask
    makes it. `head`: another than a classifier's."""

    def __init__(self, s, head=None):
        super().__init__()
        self.settings, self.routing, self.classes, self.mean, self.deviation = s, {}, [], None, None
        if s.center_input:
            self.register_buffer("input_shift", torch.zeros(1, s.channels, *s.sides))
        if s.prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, s.width))
        if s.positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, s.tokens, s.width))
        else:
            self.register_buffer("pos_embed", sincos(s), persistent=False)
        convolution = nn.Conv3d if s.dimensions == 3 else nn.Conv2d
        self.patch_embed = nn.ModuleDict({"proj": convolution(s.channels, s.width, s.patch + 2 * s.patch_margin, stride=s.patch,
                                                              padding=s.patch_margin, bias=s.patch_bias == "on")})
        self.norm_pre = nn.LayerNorm(s.width, eps=s.norm_eps) if s.pre_norm else nn.Identity()
        self.blocks = blocks_of(s)
        self.add_module("fc_norm" if s.pool == "average" else "norm", nn.LayerNorm(s.width, eps=s.norm_eps))
        self.head = head or nn.Linear(s.width * (s.tokens if s.pool == "flatten" else 1), s.classes)

    def normalise(self, images):
        """Images (B, C, S, S) in [0, 1] as the model wants them."""
        shape = (1, -1) + (1,) * self.settings.dimensions
        return (images - images.new_tensor(self.mean).reshape(shape)) / images.new_tensor(self.deviation).reshape(shape)

    def region_mask(self, labels):
        """labels (B, S, S, S), whole numbers on the volumes' grid -> allow (B·T, E)."""
        s = self.settings
        rows = torch.zeros(len(labels), s.tokens, s.moe.experts, dtype=torch.bool, device=labels.device)
        for entry in s.moe.regions.split(";"):
            expert, _, of_region = entry.partition(":")
            inside = torch.isin(labels, labels.new_tensor([int(label) for label in of_region.split(",")]))
            share = nnf.avg_pool3d(inside[:, None].double(), s.patch).flatten(1)
            rows[:, s.prefix:, int(expert)] = share > s.moe.region_share + 1e-9
        return rows.reshape(-1, s.moe.experts)

    def embed(self, images):
        s = self.settings
        if s.center_input:
            images = images + self.input_shift
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        if s.prefix:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.norm_pre(x + self.pos_embed)

    def forward(self, images, allow=None):
        if self.settings.moe.regions and self.settings.blocks_with_experts and allow is None:
            raise ValueError("experts of this model have regions: give allow=model.region_mask(labels)")
        x, self.routing = run_blocks(self.blocks, self.embed(images), allow)
        return self.head(self.read_out(x))

    def read_out(self, x):
        """Tokens (B, T, D) -> what the head reads."""
        if self.settings.pool == "average":
            return self.fc_norm(x.mean(1))
        if self.settings.pool == "token":
            return self.norm(x[:, 0])
        return self.norm(x).flatten(1) / math.sqrt(x.shape[1])


def sincos(s):
    """(1, T, D): for each side of the grid sines, then cosines, of a patch's place; zeros for the class token."""
    frequencies = s.width // (2 * len(s.grid))
    rate = 10000.0 ** (-torch.arange(frequencies, dtype=torch.float64) / frequencies)
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in s.grid)).reshape(-1, len(s.grid))
    angles = places[:, :, None] * rate
    table = torch.cat([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)
    return torch.cat([torch.zeros(s.prefix, s.width), table.float()])[None]


# Two towers

class TextTower(nn.Module):
    """tokens (B, W), at most as many as the context -> features (B, P) of each caption's first end token. What follows that is padding: no
    expert takes it, its ids in `routing` are -1."""

    def __init__(self, s, projection):
        super().__init__()
        self.settings, self.routing = s, {}
        self.token_embed = nn.Parameter(torch.zeros(s.vocabulary, s.width))
        self.pos_embed = nn.Parameter(torch.zeros(s.context, s.width))
        self.blocks, self.norm = blocks_of(s), nn.LayerNorm(s.width, eps=s.norm_eps)
        self.head = nn.Linear(s.width, projection, bias=False)

    def forward(self, tokens):
        s, length = self.settings, tokens.shape[1]
        place = torch.arange(length, device=tokens.device)
        ends = torch.where(tokens == s.end_token, place, length - 1).min(dim=1).values
        allow = (place <= ends[:, None]).reshape(-1, 1).expand(-1, s.moe.experts)
        x, self.routing = run_blocks(self.blocks, self.token_embed[tokens.long()] + self.pos_embed[:length], allow)
        return self.head(self.norm(x[torch.arange(len(x), device=x.device), ends]))


class DualEncoder(nn.Module):
    """images (B, C, S, S), normalised, and tokens (N, W) -> logits (B, N): cosines times their scale, and for the sigmoid loss a bias.
    `image.routing` and `text.routing` have what blocks with experts did in the last call."""

    def __init__(self, config):
        super().__init__()
        retrieval = {**DEFAULTS["retrieval"], **config.get("retrieval", {})}
        image, text, projection = Settings(config), TextSettings(config), retrieval["projection"]
        self.image = VisionTransformer(image, nn.Linear(image.width, projection, bias=False))
        self.text, self.tokenizer = TextTower(text, projection), None
        self.logit_scale = nn.Parameter(torch.zeros(1))  # its logarithm
        if retrieval["loss"] == "sigmoid":
            self.logit_bias = nn.Parameter(torch.zeros(1))

    def normalise(self, images):
        return self.image.normalise(images)

    def image_features(self, images, allow=None):
        return unit(self.image(images, allow))

    def text_features(self, tokens):
        return unit(self.text(tokens))

    def forward(self, images, tokens, allow=None):
        logits = self.logit_scale.exp() * self.image_features(images, allow) @ self.text_features(tokens).T
        return logits + self.logit_bias if hasattr(self, "logit_bias") else logits


# Loading and saving

def polar(q):
    """The nearest matrices with orthonormal columns, of q (…, m, n), as near as the engine comes: so that both route alike."""
    matrices = []
    for one in q.double().reshape(-1, *q.shape[-2:]):
        for _ in range(60):
            off = torch.eye(one.shape[1], dtype=one.dtype) - one.T @ one
            if off.abs().max() <= 2e-6:
                break
            one = one + 0.5 * one @ off
        matrices.append(one)
    return torch.stack(matrices).reshape(q.shape).to(q.dtype)


def make_orthonormal(model):
    """Averages of orthonormal matrices are not orthonormal: what the engine does with them before it uses them."""
    for layer in model.modules():
        if not isinstance(layer, MoeLayer) or layer.moe.orthogonality in ("penalty", "none"):
            continue
        for name, parameter in layer.named_parameters():
            if parameter.numel() and (name == "router.basis" or name.startswith("experts.") and name.endswith(("U1", "V1", "U2", "V2"))):
                parameter.copy_(polar(parameter))
        if layer.experts.shared and layer.experts.V1.numel():
            basis, rest = layer.router.bases(layer.experts).double(), layer.experts.V1
            rest.copy_(polar(rest.double() - basis @ (basis.transpose(1, 2) @ rest.double())))


def read_state(folder):
    """The config of a checkpoint as nested dictionaries, and the names of its classes."""
    path = os.path.join(folder, "state.json")
    with open(path) as file:
        state = json.load(file)
    if state.get("format") != FORMAT:
        raise CannotLoad(f"{path}: format {state.get('format')}, but ermoe_torch.py reads {FORMAT}")
    config = json.loads(state["config"])
    for section, key, known in (("moe", "router", list(ROUTERS)), ("moe", "layer", ["routed", "cp"]), ("moe", "expert", ["eigen", "plain"]),
                                ("moe", "basis", ["leading", "disjoint", "untied"]), ("model", "activation", list(ACTIVATIONS)),
                                ("retrieval", "loss", ["info_nce", "sigmoid"])):
        value = config.get(section, {}).get(key, known[0])
        if value not in known:
            raise CannotLoad(f"{path}: {section}.{key} {value} is not known to ermoe_torch.py")
    return config, state["classes"]


def fill(model, tensors, path):
    """Puts the file's tensors into the model; each must be in both, of one shape."""
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            raise CannotLoad(f"{path}: {name} is missing")
        if name not in own:
            raise CannotLoad(f"{path}: {name} is nothing that ermoe_torch.py knows")
        if own[name].shape != tensors[name].shape:
            raise CannotLoad(f"{path}: {name} is {tuple(tensors[name].shape)} but the settings say {tuple(own[name].shape)}")
    model.load_state_dict(tensors)


def load(path, averaged=None):
    """The model of a run folder (its best checkpoint, else its latest) or of a checkpoint's own folder, in eval mode. `averaged`: the
    averaged weights (True), the last ones (False), or as the programs do (None): averaged where there are some."""
    folder = checkpoint_folder(path)
    config, classes = read_state(folder)
    two = config.get("text", {}).get("depth", 0) > 0
    model = (DualEncoder(config) if two else VisionTransformer(Settings(config))).eval()
    image, data = model.image if two else model, config.get("data", {})
    image.classes, image.mean, image.deviation = classes, data.get("mean"), data.get("std")
    file = os.path.join(folder, "model.safetensors")
    tensors = read_safetensors(file)[0]
    fill(model, tensors, file)
    average = os.path.join(folder, "ema.safetensors")
    if averaged and not os.path.exists(average):
        raise CannotLoad(f"{folder}: holds no averaged weights (optim.ema)")
    if averaged is not False and os.path.exists(average):
        averages = read_safetensors(average)[0]
        lost = [name for name in tensors if name not in averages]
        if lost:
            raise CannotLoad(f"{average}: {lost[0]} is missing, since the checkpoint was written between two evaluations; "
                             "load another one, or the last weights with averaged=False")
        fill(model, averages, average)
        with torch.no_grad():
            make_orthonormal(model)
    return model


def timm_state_dict(model):
    """Of a dense model, the tensors that timm's VisionTransformer of its sizes loads."""
    s = model.settings
    for wrong, what in ((s.blocks_with_experts, "experts in some blocks (moe.layers)"), (s.dimensions != 2, "volumes (model.dimensions)"),
                        (s.patch_margin, "patches that overlap (model.patch_margin)"), (s.pool == "flatten", "model.pool flatten")):
        if wrong:
            raise CannotLoad(f"timm's vision transformers know no {what}")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shift = tensors.pop("input_shift", None)
    tensors["pos_embed"] = model.pos_embed.detach().clone()
    if shift is not None:  # a constant added to the image is one added to its patches
        weight = model.patch_embed["proj"].weight.detach()
        patches = nnf.conv2d(shift, weight, stride=s.patch).flatten(2).transpose(1, 2)
        tensors["pos_embed"][:, s.prefix:] += patches
    return tensors


def main(path):
    model = load(path)
    s = model.settings
    print(f"{checkpoint_folder(path)}: {sum(p.numel() for p in model.parameters())} parameters, input {s.channels} x "
          f"{' x '.join(map(str, s.sides))}, {s.classes} outputs, experts in blocks {s.blocks_with_experts or 'none'}"
          f"{f' by {s.moe.router}' if s.blocks_with_experts else ''}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else ".")
    except CannotLoad as fault:
        sys.exit(f"ermoe_torch: {fault}")
