#!/usr/bin/env python3
"""Writes or checks the golden files of dual encoders: make_clip_golden.py [--check].

Cases 70 and 71 are tiny CLIP models with random weights under the names of Hugging Face and of OpenCLIP, and what a float64 model
makes of images and texts. Cases 72 and 73 are dual encoders of the engine's own names, dense and with experts in both towers, with
their loss and all gradients; 74 is dense with SigLIP's loss. Case 75 is a vision transformer under timm's names, with a classifier's head,
and what it hands to that head. Files are in clip/. Read next: ermoe_model.py, whose mixture of experts
this uses.
"""

import argparse
import json
import math
import sys

import torch
import torch.nn.functional as nnf

import ermoe_model as vit
from make_golden import FOLDER, TOLERANCE, difference, eigen_values, read_safetensors, write_safetensors

END = 28  # the token that ends a caption
CLIP_EPS = 1e-5
CAPTIONS = [[27, 3, 9, END, 0, 0, 0], [27, 5, 5, 11, 20, 1, END], [27, END, END, END, END, END, END], [27, 1, 2, 3, 4, 5, END]]


def normal(rng, *size):
    return torch.randn(*size, generator=rng, dtype=torch.float64)


# CLIP by the description of its architecture: names are a third party's, code is not

HUGGING_FACE = {
    "blocks": "encoder.layers", "norm1": "layer_norm1", "norm2": "layer_norm2", "out": "self_attn.out_proj", "up": "mlp.fc1",
    "down": "mlp.fc2"}
OPEN_CLIP = {
    "blocks": "transformer.resblocks", "norm1": "ln_1", "norm2": "ln_2", "out": "attn.out_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}


def block_weights(names, prefix, width, hidden, rng):
    w = {}

    def linear(name, out, inside):
        w[f"{prefix}.{name}.weight"] = normal(rng, out, inside) * (1.5 / inside) ** 0.5
        w[f"{prefix}.{name}.bias"] = 0.1 * normal(rng, out)

    for name in ("norm1", "norm2"):
        w[f"{prefix}.{names[name]}.weight"] = 1 + 0.2 * normal(rng, width)
        w[f"{prefix}.{names[name]}.bias"] = 0.1 * normal(rng, width)
    if names is HUGGING_FACE:
        for part in "qkv":
            linear(f"self_attn.{part}_proj", width, width)
    else:
        w[f"{prefix}.attn.in_proj_weight"] = normal(rng, 3 * width, width) * (1.5 / width) ** 0.5
        w[f"{prefix}.attn.in_proj_bias"] = 0.1 * normal(rng, 3 * width)
    linear(names["out"], width, width)
    linear(names["up"], hidden, width)
    linear(names["down"], width, hidden)
    return w


def clip_weights(names, c, rng):
    """Every tensor of a model, as a file has them."""
    hf, w = names is HUGGING_FACE, {}
    image, text = ("vision_model.", "text_model.") if hf else ("visual.", "")
    where = lambda theirs, others: theirs if hf else others
    width, words, P = c["width"], c["text_width"], c["projection"]
    tokens = (c["image_size"] // c["patch"]) ** 2 + 1
    w[image + where("embeddings.class_embedding", "class_embedding")] = 0.5 * normal(rng, width)
    w[image + where("embeddings.position_embedding.weight", "positional_embedding")] = 0.5 * normal(rng, tokens, width)
    w[image + where("embeddings.patch_embedding.weight", "conv1.weight")] = 0.3 * normal(rng, width, 3, c["patch"], c["patch"])
    w[text + where("embeddings.token_embedding.weight", "token_embedding.weight")] = 0.5 * normal(rng, c["vocabulary"], words)
    w[text + where("embeddings.position_embedding.weight", "positional_embedding")] = 0.5 * normal(rng, c["context"], words)
    norms = [(image + where("pre_layrnorm", "ln_pre"), width), (image + where("post_layernorm", "ln_post"), width),
             (text + where("final_layer_norm", "ln_final"), words)]
    for name, size in norms:
        w[name + ".weight"], w[name + ".bias"] = 1 + 0.2 * normal(rng, size), 0.1 * normal(rng, size)
    for prefix, depth, size in ((image, c["depth"], width), (text, c["text_depth"], words)):
        for i in range(depth):
            w.update(block_weights(names, f"{prefix}{names['blocks']}.{i}", size, 4 * size, rng))
    if hf:
        w["visual_projection.weight"], w["text_projection.weight"] = normal(rng, P, width) / 4, normal(rng, P, words) / 4
    else:
        w["visual.proj"], w["text_projection"] = normal(rng, width, P) / 4, normal(rng, words, P) / 4
    w["logit_scale"] = torch.tensor(2.5, dtype=torch.float64)
    return w


def clip_block(names, w, prefix, x, heads, act, mask):
    batch, tokens, width = x.shape
    norm = lambda name, y: nnf.layer_norm(y, (width,), w[f"{prefix}.{names[name]}.weight"], w[f"{prefix}.{names[name]}.bias"], CLIP_EPS)
    linear = lambda name, y: y @ w[f"{prefix}.{name}.weight"].T + w[f"{prefix}.{name}.bias"]
    h = norm("norm1", x)
    if names is HUGGING_FACE:
        q, k, v = (linear(f"self_attn.{part}_proj", h) for part in "qkv")
    else:
        q, k, v = (h @ w[f"{prefix}.attn.in_proj_weight"].T + w[f"{prefix}.attn.in_proj_bias"]).chunk(3, dim=-1)
    split = lambda y: y.reshape(batch, tokens, heads, width // heads).transpose(1, 2)
    scores = split(q) @ split(k).transpose(-1, -2) / math.sqrt(width // heads)
    if mask:
        scores = scores + torch.full((tokens, tokens), float("-inf"), dtype=torch.float64).triu(1)
    mixed = (torch.softmax(scores, -1) @ split(v)).transpose(1, 2).reshape(batch, tokens, width)
    x = x + linear(names["out"], mixed)
    return x + linear(names["down"], act(linear(names["up"], norm("norm2", x))))


def clip_features(names, w, c, images, tokens):
    """(B, P) of images and of texts, each of length 1."""
    hf = names is HUGGING_FACE
    act = (lambda x: x * torch.sigmoid(1.702 * x)) if c["activation"] == "quick_gelu" else vit.gelu
    image, text = ("vision_model.", "text_model.") if hf else ("visual.", "")
    where = lambda theirs, others: theirs if hf else others
    norm = lambda name, y: nnf.layer_norm(y, y.shape[-1:], w[name + ".weight"], w[name + ".bias"], CLIP_EPS)
    x = nnf.conv2d(images, w[image + where("embeddings.patch_embedding.weight", "conv1.weight")], stride=c["patch"]).flatten(2).transpose(1, 2)
    first = w[image + where("embeddings.class_embedding", "class_embedding")].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + w[image + where("embeddings.position_embedding.weight", "positional_embedding")]
    x = norm(image + where("pre_layrnorm", "ln_pre"), x)
    for i in range(c["depth"]):
        x = clip_block(names, w, f"{image}{names['blocks']}.{i}", x, c["heads"], act, False)
    x = norm(image + where("post_layernorm", "ln_post"), x[:, 0])
    x = x @ w["visual_projection.weight"].T if hf else x @ w["visual.proj"]
    y = w[text + where("embeddings.token_embedding.weight", "token_embedding.weight")][tokens]
    y = y + w[text + where("embeddings.position_embedding.weight", "positional_embedding")][: tokens.shape[1]]
    for i in range(c["text_depth"]):
        y = clip_block(names, w, f"{text}{names['blocks']}.{i}", y, c["text_heads"], act, True)
    ends = torch.tensor([row.tolist().index(END) for row in tokens])
    y = norm(text + where("final_layer_norm", "ln_final"), y[torch.arange(len(y)), ends])
    y = y @ w["text_projection.weight"].T if hf else y @ w["text_projection"]
    return x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)


CLIP_SIZES = {"image_size": 8, "patch": 4, "width": 12, "depth": 2, "heads": 3, "text_width": 8, "text_depth": 3, "text_heads": 2,
              "vocabulary": 29, "context": 7, "projection": 6}


def clip_case(index, names, activation):
    rng = torch.Generator().manual_seed(index)
    c = dict(CLIP_SIZES, activation=activation)
    stored = torch.float16 if names is OPEN_CLIP else torch.float64  # OpenCLIP's files often are
    w = {n: t.to(stored).float().double() for n, t in clip_weights(names, c, rng).items()}  # exact in float32 too
    images = torch.randn(4, 3, c["image_size"], c["image_size"], generator=rng).double()
    tokens = torch.tensor(CAPTIONS)
    image, text = clip_features(names, w, c, images, tokens)
    beside = {"vision_model.embeddings.position_ids": torch.arange(5)[None]} if names is HUGGING_FACE else {}
    weights = dict({n: t.to(stored) for n, t in w.items()}, **beside)
    return {f"case_{index}_weights": (weights, {"format": "pt"}),
            f"case_{index}": ({"images": images, "tokens": tokens, "image_features": image, "text_features": text},
                              {"config": json.dumps(c, separators=(",", ":"))})}


# Dual encoders under the engine's names

SMALL = {"model.image_size": 8, "model.patch": 4, "model.width": 12, "model.depth": 2, "model.heads": 3, "model.mlp_ratio": 1.25,
         "moe.experts": 4, "moe.top_k": 2, "moe.hidden": 7, "moe.basis_rank": 2, "moe.rank": 5}
TEXT = {"width": 8, "depth": 2, "heads": 2, "mlp_ratio": 1.25}
PROJECTION = 6


def text_config(config, layers):
    """The text tower's blocks in the words of ermoe_model.py."""
    own = {f"model.{key}": value for key, value in TEXT.items()}
    return dict(config, **own, **{"moe.layers": layers})


def dual_values(config, text, rng):
    shapes = {f"image.{n}": s for n, s in vit.parameter_shapes(config).items()}
    del shapes["image.head.bias"]
    words = len(CAPTIONS[0])
    shapes.update({"text.token_embed": (END + 1, TEXT["width"]), "text.pos_embed": (words, TEXT["width"])})
    for block in range(TEXT["depth"]):
        shapes.update({f"text.blocks.{block}.{n}": s for n, s in vit.block_shapes(text, block).items()})
    shapes.update({"text.norm.weight": (TEXT["width"],), "text.norm.bias": (TEXT["width"],), "text.head.weight": (PROJECTION, TEXT["width"])})
    p = {}
    for name, shape in shapes.items():
        if name.endswith("norm.weight") or name.endswith(("norm1.weight", "norm2.weight")):
            p[name] = 1 + 0.2 * normal(rng, *shape)
        elif name.endswith(("bias", ".b1", ".b2")):
            p[name] = 0.1 * normal(rng, *shape)
        else:
            p[name] = 0.6 * normal(rng, *shape) * (1 if len(shape) < 2 else 2 / shape[-1] ** 0.5)
    for tower, c in (("image", config), ("text", text)):
        for block in vit.moe_blocks(c):
            eigen_values(p, c, f"{tower}.blocks.{block}.moe", rng)
    return p


def tower(config, p, name, x, mask, allow, buffers, traces):
    """The blocks of a tower: x (B, T, D) -> (B, T, D)."""
    batch, tokens, width = x.shape
    heads = config["model.heads"]
    for block in range(config["model.depth"]):
        own = f"{name}.blocks.{block}"
        h = vit.norm(p, f"{own}.norm1", x)
        q, k, v = vit.linear(p, f"{own}.attn.qkv", h).reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads)
        if mask:
            scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=torch.bool).triu(1), float("-inf"))
        context = vit.linear(p, f"{own}.attn.proj", (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(batch, tokens, width))
        x = x + context
        h = vit.norm(p, f"{own}.norm2", x)
        if block in vit.moe_blocks(config):
            trace = traces[own] = {"load_threshold": None}
            y, _ = vit.moe(config, p, buffers, f"{own}.moe", h, context, allow, trace)
        else:
            y = vit.linear(p, f"{own}.mlp.fc2", vit.gelu(vit.linear(p, f"{own}.mlp.fc1", h)))
        x = x + y
    return x


def dual_loss(config, text, p, buffers, images, tokens, kind):
    traces = {}
    x = nnf.conv2d(images, p["image.patch_embed.proj.weight"], p["image.patch_embed.proj.bias"], stride=config["model.patch"])
    x = torch.cat([p["image.cls_token"].expand(len(images), -1, -1), x.flatten(2).transpose(1, 2)], 1) + p["image.pos_embed"]
    x = vit.norm(p, "image.norm", tower(config, p, "image", x, False, None, buffers, traces)[:, 0]) @ p["image.head.weight"].T
    ends = torch.tensor([row.tolist().index(END) for row in tokens])
    valid = (torch.arange(tokens.shape[1])[None] <= ends[:, None]).to(torch.uint8)  # (B, W)
    allow = valid[:, :, None].expand(-1, -1, config["moe.experts"])
    y = p["text.token_embed"][tokens] + p["text.pos_embed"]
    y = tower(text, p, "text", y, True, allow, buffers, traces)
    y = vit.norm(p, "text.norm", y[torch.arange(len(y)), ends]) @ p["text.head.weight"].T
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    logits = p["logit_scale"].exp() * x @ y.T
    if kind == "sigmoid":
        signs = 2 * torch.eye(len(x), dtype=torch.float64) - 1
        return -nnf.logsigmoid(signs * (logits + p["logit_bias"])).sum() / len(x), x, y, traces
    own = torch.arange(len(x))
    return (nnf.cross_entropy(logits, own) + nnf.cross_entropy(logits.T, own)) / 2, x, y, traces


def dual_case(index, layers, kind, text_layers="none"):
    """The first seed in which no choice of experts is near a tie."""
    for seed in range(1000 * index, 1000 * index + 200):
        rng = torch.Generator().manual_seed(seed)
        config = dict(vit.DEFAULTS, **SMALL, **{"moe.layers": layers, "model.classes": PROJECTION})
        text = text_config(config, text_layers)
        p = {n: t for n, t in dual_values(config, text, rng).items()}
        p["logit_scale"] = torch.tensor([1.5], dtype=torch.float64)
        if kind == "sigmoid":
            p["logit_bias"] = torch.tensor([-1.0], dtype=torch.float64)
        buffers = {}
        for tower_name, c in (("image", config), ("text", text)):
            buffers.update({f"{tower_name}.{n}": torch.zeros(s, dtype=torch.float64) for n, s in vit.buffer_shapes(c).items()})
        images, tokens = torch.randn(4, 3, 8, 8, generator=rng).double(), torch.tensor(CAPTIONS)
        leaves = {n: t.clone().requires_grad_() for n, t in p.items()}
        loss, image, words, traces = dual_loss(config, text, leaves, buffers, images, tokens, kind)
        if any(clear(trace) < 1 for trace in traces.values()):
            continue
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        tensors = {"images": images, "tokens": tokens, "loss": loss.detach(), "image_features": image.detach(), "text_features": words.detach()}
        tensors.update({f"param.{n}": t for n, t in p.items()})
        tensors.update({f"grad.{n}": torch.zeros_like(p[n]) if g is None else g for n, g in zip(leaves, grads)})
        means = {}
        for own, trace in traces.items():
            tensors[f"ids.{own}"] = trace["ids"]
            means.update(statistics_of(own, trace))
        tensors.update(means)
        settings = {"text_layers": text_layers, "loss": kind, "model": config, "text": TEXT}
        return {f"case_{index}": (tensors, {"config": json.dumps(settings, separators=(",", ":")), "seed": str(seed)})}
    sys.exit(f"case {index}: no seed keeps its decisions clear")


def statistics_of(own, trace):
    """Running means after the first step: of the tokens and contexts that may go anywhere."""
    mask = trace["mask"]
    rows = torch.ones(len(trace["s"]), dtype=torch.bool) if mask is None else mask.any(1)
    return {f"buffer.{own}.moe.router.mean_x": trace["x"].detach()[rows].mean(0), f"buffer.{own}.moe.router.mean_c": trace["c"].detach()[rows].mean(0)}


def clear(trace):
    """Above 1 where scores of open tokens are 1e-4 apart, and as far from the floor of the weights."""
    rows = torch.ones(len(trace["s"]), dtype=torch.bool) if trace["mask"] is None else trace["mask"].any(1)
    s = trace["s"][rows].sort(1).values
    return float(torch.minimum((s[:, 1:] - s[:, :-1]).min(), (s - vit.WEIGHT_FLOOR).abs().min())) / 1e-4


def timm_case(index):
    """A classifier's weights; `features` (B, D) are what its head would read."""
    rng = torch.Generator().manual_seed(index)
    config = dict(vit.DEFAULTS, **SMALL, **{"moe.layers": "none", "model.classes": 5})
    config["model.mlp_ratio"] = 4
    shapes = vit.parameter_shapes(config)
    p = {n: (0.5 * normal(rng, *s) * (1 if len(s) < 2 else 2 / s[-1] ** 0.5)).float().double() for n, s in shapes.items()}
    images = torch.randn(4, 3, 8, 8, generator=rng).double()
    x = nnf.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=config["model.patch"])
    x = torch.cat([p["cls_token"].expand(len(images), -1, -1), x.flatten(2).transpose(1, 2)], 1) + p["pos_embed"]
    named = {f"image.{n}": t for n, t in p.items()}
    features = vit.norm(p, "norm", tower(config, named, "image", x, False, None, {}, {})[:, 0])
    return {f"case_{index}_weights": (p, {"format": "pt"}), f"case_{index}": ({"images": images, "features": features}, {})}


def all_files():
    files = {}
    files.update(clip_case(70, HUGGING_FACE, "quick_gelu"))
    files.update(clip_case(71, OPEN_CLIP, "gelu"))
    files.update(dual_case(72, "none", "info_nce"))
    files.update(dual_case(73, "1", "info_nce", "0,1"))
    files.update(dual_case(74, "none", "sigmoid"))
    files.update(timm_case(75))
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the committed files with new ones")
    torch.set_num_threads(1)
    check, faults = parser.parse_args().check, 0
    for name, (tensors, metadata) in all_files().items():
        path = FOLDER / "clip" / f"{name}.safetensors"
        if not check:
            write_safetensors(path, tensors, metadata)
            continue
        have, _ = read_safetensors(path)
        if have.keys() != tensors.keys():
            sys.exit(f"{path.name}: other tensors")
        for tensor in have:
            deviation = difference(tensors[tensor].detach(), have[tensor])
            if not deviation <= TOLERANCE:  # nor a NaN
                print(f"{path.name}: {tensor} differs by {deviation:.1e}")
                faults += 1
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
