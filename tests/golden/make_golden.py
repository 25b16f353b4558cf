#!/usr/bin/env python3
"""Writes, checks and tests the golden cases: make_golden.py [--new | --check | --selftest | --list].

A case is a tiny model, a batch, and what ten training steps of the float64 model make of them (README.md has the
format). Without an argument the files are written beside this script; --check makes them again in memory and compares.
Read next: ermoe_model.py.
"""

import argparse
import json
import pathlib
import struct
import sys
import time

import torch

import ermoe_model as model
from ermoe_optim import Optimizer
from golden_cases import all_cases

FOLDER = pathlib.Path(__file__).resolve().parent
BATCH = 3
STEPS = 10
TOLERANCE = 1e-9
SMALL = 1e-6  # below this, a tensor's largest entry counts as this: some gradients are zero but for rounding


# Files

def write_safetensors(path, tensors, metadata):
    """u64 length of the header, the header as JSON, the tensors' bytes."""
    names = {torch.float64: "F64", torch.float16: "F16", torch.int64: "I64", torch.uint8: "U8"}
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().contiguous().numpy().tobytes()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    types = {"F64": torch.float64, "F16": torch.float16, "I64": torch.int64, "U8": torch.uint8}
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    metadata, tensors = header.pop("__metadata__"), {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=types[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


# Inputs

def initial_value(config, name, shape, rng):
    """Every entry random, so that no formula is tested at a 0 or 1 that hides a fault."""
    normal = lambda *size: torch.randn(*size, generator=rng, dtype=torch.float64)
    leaf = name.rsplit(".", 1)[1] if "." in name else name
    if leaf in ("cls_token", "pos_embed"):
        return 0.5 * normal(*shape)
    if name.endswith(".router.gamma"):
        return 1 + 0.2 * normal(*shape)
    if leaf == "gamma":
        return config["model.layer_scale"] * (1 + 0.2 * normal(*shape))
    if leaf == "weight" and len(shape) == 1:
        return 1 + 0.2 * normal(*shape)
    if leaf in ("bias", "b1", "b2", "temperature"):
        return 0.1 * normal(*shape)
    if leaf == "basis":
        return torch.linalg.qr(normal(*shape)).Q
    return normal(*shape) * (1.5 / torch.tensor(shape[1:]).prod() if leaf == "weight" and len(shape) == 4 else
                             2.0 / shape[-1]) ** 0.5


def eigen_values(p, config, name, rng):
    """The thin SVD of Kaiming-normal matrices, the largest singular values first, cut at the rank."""
    shapes = model.moe_shapes(config)
    experts, hidden, rank = shapes["experts.U1"]
    width = config["model.width"]
    for layer, rows, columns in (("1", hidden, width), ("2", width, hidden)):
        w = torch.randn(experts, rows, columns, generator=rng, dtype=torch.float64) * (2.0 / columns) ** 0.5
        u, s, vt = torch.linalg.svd(w, full_matrices=False)
        p[f"{name}.experts.U{layer}"] = u[:, :, :rank].contiguous()
        p[f"{name}.experts.s{layer}"] = s[:, :rank].contiguous()
        p[f"{name}.experts.V{layer}"] = vt[:, :rank].transpose(1, 2).contiguous()
    if config["moe.router"] != "ermoe" or config["moe.basis"] != "disjoint":
        return
    scored, v1, basis = config["moe.experts"], p[f"{name}.experts.V1"], model.bases(config, p, name)
    if config["moe.free_experts"]:
        p[f"{name}.experts.free_V1"] = v1[scored:].clone()
    rest = torch.randn(shapes["experts.V1"], generator=rng, dtype=torch.float64)
    p[f"{name}.experts.V1"] = torch.linalg.qr(rest - basis @ (basis.transpose(1, 2) @ rest)).Q.contiguous()


def initial_parameters(config, rng):
    shapes = model.parameter_shapes(config)
    p = {name: initial_value(config, name, shape, rng) for name, shape in shapes.items()}
    if config["moe.expert"] == "eigen":
        for block in model.moe_blocks(config):
            eigen_values(p, config, f"blocks.{block}.moe", rng)
    assert all(tuple(p[name].shape) == shape for name, shape in shapes.items()) and len(p) == len(shapes)
    return p


def dense_networks(config, rng):
    """Under timm's names, for each block with experts: what they are made from."""
    width, hidden = config["model.width"], config["moe.hidden"] or 4 * config["model.width"]
    shapes = {"fc1.weight": (hidden, width), "fc1.bias": (hidden,), "fc2.weight": (width, hidden), "fc2.bias": (width,)}
    value = lambda shape: torch.randn(shape, generator=rng, dtype=torch.float64) * (0.1 if len(shape) == 1 else shape[1] ** -0.5)
    return {f"blocks.{block}.mlp.{name}": value(shape)
            for block in model.moe_blocks(config) for name, shape in shapes.items()}


def upcycle(config, p, dense):
    """Each expert becomes the dense network. Of expert e the singular triplets come in the order of (i - e) mod E, the larger value
    first where that is equal; free experts have them as they are."""
    scored, free = config["moe.experts"], config["moe.free_experts"]
    rank = config["moe.rank"] or min(config["moe.hidden"], config["model.width"])
    orders = [sorted(range(rank), key=lambda i, e=e: ((i - e) % scored, i)) for e in range(scored)] + [list(range(rank))] * free
    for block in model.moe_blocks(config):
        name = f"blocks.{block}.moe"
        for layer in ("1", "2"):
            u, s, vt = torch.linalg.svd(dense[f"blocks.{block}.mlp.fc{layer}.weight"], full_matrices=False)
            p[f"{name}.experts.U{layer}"] = torch.stack([u[:, order] for order in orders])
            p[f"{name}.experts.s{layer}"] = torch.stack([s[order] for order in orders])
            p[f"{name}.experts.V{layer}"] = torch.stack([vt[order].T for order in orders])
            p[f"{name}.experts.b{layer}"] = dense[f"blocks.{block}.mlp.fc{layer}.bias"].repeat(scored + free, 1)
        if config["moe.basis"] == "disjoint":
            columns, v1 = config["moe.basis_rank"], p[f"{name}.experts.V1"]
            p[f"{name}.router.basis"] = torch.cat(list(v1[:scored, :, :columns]), dim=1)
            p[f"{name}.experts.V1"] = v1[:scored, :, columns:].contiguous()
            if free:
                p[f"{name}.experts.free_V1"] = v1[scored:].contiguous()


def make_inputs(config, has_allow, seed):
    rng = torch.Generator().manual_seed(seed)
    side = config["model.image_size"]
    inputs = {"images": torch.randn(BATCH, config["model.channels"], side, side, generator=rng).double(),
              "labels": torch.randint(config["model.classes"], (BATCH,), generator=rng)}
    if has_allow:
        size = (BATCH, model.tokens_per_image(config), config["moe.experts"])
        inputs["allow"] = (torch.rand(size, generator=rng) < 0.6).to(torch.uint8)
    p = initial_parameters(config, rng)
    if config.get("train.upcycle"):
        dense = dense_networks(config, rng)
        upcycle(config, p, dense)
        logits, _, _ = model.forward(dict(config, **{"moe.layers": "none"}), {**p, **dense}, {}, inputs["images"])
        inputs.update({f"dense.{name}": value for name, value in dense.items()}, **{"dense.logits": logits})
    return inputs, p


# Runs

def loss_of(config, p, buffers, inputs, constants=None):
    logits, extra, traces = model.forward(config, p, buffers, inputs["images"], inputs.get("allow"), constants)
    return model.task_loss(config, logits, inputs["labels"]) + extra, logits, traces


def training_step(config, p, buffers, inputs):
    """Loss, logits, traces and gradients, with the statistics of the step's start."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in p.items()}
    loss, logits, traces = loss_of(config, leaves, buffers, inputs)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    grads = {n: torch.zeros_like(p[n]) if g is None else g for n, g in zip(leaves, grads)}
    return loss.detach(), logits.detach(), traces, grads


def shaken(grads, noise):
    """Gradients with random errors of this size relative to each tensor's largest entry."""
    rng = torch.Generator().manual_seed(1)
    return {n: g + noise * (g.abs().max() + 1e-2) * torch.randn(g.shape, generator=rng, dtype=torch.float64)
            for n, g in grads.items()}


def run_case(config, has_allow, seed, noise=0.0):
    """The tensors of a case file, and the smallest distance of a decision from its tie in units of what is required."""
    inputs, p = make_inputs(config, has_allow, seed)
    tensors = dict(inputs, **{f"param.{name}": value for name, value in p.items()})
    buffers = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in model.buffer_shapes(config).items()}
    optimizer, losses, margin = Optimizer(config), [], float("inf")
    for step in range(STEPS):
        loss, logits, traces, grads = training_step(config, p, buffers, inputs)
        losses.append(loss)
        margin = min([margin] + [decision_margin(config, trace, step == 0) for trace in traces.values()])
        p = optimizer.step(p, shaken(grads, noise) if noise else grads)
        model.update_statistics(config, buffers, traces)
        if step == 0:
            tensors.update({"logits": logits, "loss": loss})
            tensors.update({f"grad.{name}": grad for name, grad in grads.items()})
            for block, trace in traces.items():
                tensors.update({f"ids.{block}": trace["ids"], f"weights.{block}": trace["weights"]})
            tensors.update({f"buffer.{name}": value for name, value in buffers.items()})
    tensors["losses"] = torch.stack(losses)
    tensors.update({f"final.{name}": value for name, value in p.items()})
    tensors.update({f"final_buffer.{name}": value for name, value in buffers.items()})
    return tensors, margin


def decision_margin(config, trace, first):
    """Above 1 where float32 takes the same decisions: scores 1e-5 apart, calibrated ones 1e-4, and on the first step
    1e-6 from an edge of the histogram's bins; where tokens claim experts by their weights, those are 1e-6 apart."""
    s, order, threshold = trace["s"], trace["order"], trace["threshold"]
    mask = trace["mask"] if trace["mask"] is not None else torch.ones_like(s, dtype=torch.bool)
    allowed = s[mask]
    gaps = []
    for values, unit in ((order, 1e-5 if torch.equal(order, s) else 1e-4), (s, 1e-5)):
        ranked = values.masked_fill(~mask, float("-inf")).sort(dim=1, descending=True).values
        gap = ranked[:, :-1] - ranked[:, 1:]
        gaps.append(gap[torch.isfinite(gap)] / unit)
    if trace.get("claims") is not None:
        claims = trace["claims"].sort().values
        gaps.append((claims[1:] - claims[:-1]) / 1e-6)
    if "cuts" in trace:  # experts compare tokens
        gaps.append(trace["cuts"] / 1e-5)
    if threshold is not None:
        gaps.append((allowed - threshold).abs() / 1e-5)
    if config["moe.router"] == "ermoe" and config["moe.combine"] == "normalized":
        gaps.append((allowed - model.WEIGHT_FLOOR).abs() / 1e-5)
    if first and model.quantile_of(config) is not None:
        at = (allowed + 1) * (model.HISTOGRAM_BINS / 2)
        gaps.append((at - at.round()).abs() * (2 / model.HISTOGRAM_BINS) / 1e-6)
    return min([float(gap.min()) for gap in gaps if len(gap)] + [float("inf")])


def make_case(index, config, has_allow):
    """The first seed whose decisions are clear, whose mask leaves each expert a token, and in which ten steps do not
    amplify rounding."""
    for seed in range(1000 * index, 1000 * index + 200):
        tensors, margin = run_case(config, has_allow, seed)
        if margin <= 1 or ("allow" in tensors and not bool(tensors["allow"].flatten(0, 1).any(0).all())):
            continue
        rounded, _ = run_case(config, has_allow, seed, noise=1e-15)
        if all(difference(rounded[name], value) < TOLERANCE / 5 for name, value in tensors.items()
               if name.startswith(("losses", "final"))):
            return tensors, {"config": json.dumps(config, separators=(",", ":")), "seed": str(seed)}
    sys.exit(f"case {index}: no seed keeps its decisions clear")


# Commands

def difference(have, want):
    """Largest deviation relative to the largest entry; infinity where shapes or integers differ."""
    if have.shape != want.shape or have.dtype != want.dtype:
        return float("inf")
    if not want.is_floating_point():
        return 0.0 if torch.equal(have, want) else float("inf")
    if want.numel() == 0:
        return 0.0
    return float((have - want).abs().max()) / max(float(want.abs().max()), SMALL)


def path_of(index):
    return FOLDER / f"case_{index:02d}.safetensors"


def check(cases):
    """Exit status: 0 where each committed file is what this script makes."""
    worst, faults = 0.0, []
    extra = {path.name for path in FOLDER.glob("case_*.safetensors")} - {path_of(i).name for i in cases}
    faults += [f"{name}: no such case" for name in sorted(extra)]
    for index, (config, has_allow) in cases.items():
        if not path_of(index).exists():
            faults.append(f"{path_of(index).name} is missing")
            continue
        want, metadata = read_safetensors(path_of(index))
        have, _ = run_case(config, has_allow, int(metadata["seed"]))
        if json.loads(metadata["config"]) != config or have.keys() != want.keys():
            faults.append(f"{path_of(index).name}: other settings or tensors")
            continue
        for name in want:
            worst = max(worst, deviation := difference(have[name], want[name]))
            if not deviation <= TOLERANCE:
                faults.append(f"{path_of(index).name}: {name} differs by {deviation:.1e}")
    print("\n".join(faults) or f"{len(cases)} cases agree, largest relative difference {worst:.1e}")
    return 1 if faults else 0


def write(cases, which):
    total = 0
    for index, (config, has_allow) in cases.items():
        if which == "missing" and path_of(index).exists():
            continue
        tensors, metadata = make_case(index, config, has_allow)
        write_safetensors(path_of(index), tensors, metadata)
        total += path_of(index).stat().st_size
        print(f"{path_of(index).name} {path_of(index).stat().st_size:7d} bytes, seed {metadata['seed']}")
    print(f"{len(cases)} cases, {total} bytes")
    return 0


def listing(cases):
    """Each case by the settings in which it differs from the defaults."""
    for index, (config, has_allow) in cases.items():
        changed = [f"{k.split('.')[1]}={v}" for k, v in config.items() if v != model.DEFAULTS.get(k)]
        print(f"{index:02d} {' '.join(changed)}{' +allow' if has_allow else ''}")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    for name, text in (("check", "compare the committed files with new ones"), ("selftest", "test the model itself"),
                       ("new", "write the files that are missing alone"),
                       ("list", "print the cases' settings")):
        group.add_argument(f"--{name}", action="store_true", help=text)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, cases = time.time(), all_cases()
    if options.selftest:
        import golden_selftest
        status = golden_selftest.run(list(cases.values()))
    else:
        status = check(cases) if options.check else listing(cases) if options.list else write(
            cases, "missing" if options.new else "all")
    print(f"{time.time() - started:.1f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
