"""What routers of the reference model keep from step to step: ermoe's running statistics, bias_balanced's biases."""

import math

import torch

HISTOGRAM_BINS = 4096  # uniform on [-1, 1]


def update_statistics(config, buffers, traces):
    """One update from the traces of an accepted step; the first replaces."""
    for block, trace in traces.items():
        name, momentum = f"blocks.{block}.moe.router", config["moe.momentum"]
        if f"{name}.bias" in buffers:
            load = torch.bincount(trace["ids"].flatten(), minlength=config["moe.experts"]).double()
            moved = config["moe.bias_rate"] * torch.sign(load.mean() - load)
            buffers[f"{name}.bias"] = buffers[f"{name}.bias"] + moved
        if f"{name}.updates" not in buffers:
            continue
        share = momentum if buffers[f"{name}.updates"] > 0 else 1.0
        for key, value in batch_statistics(config, trace).items():
            if f"{name}.{key}" in buffers:
                old = buffers[f"{name}.{key}"]
                buffers[f"{name}.{key}"] = torch.where(torch.isnan(value), old, (1 - share) * old + share * value)
        buffers[f"{name}.updates"] = buffers[f"{name}.updates"] + 1


def batch_statistics(config, trace):
    """Means of x and c over all tokens; mean and population variance of each score over its allowed tokens; the
    histogram of each token's K best allowed scores, as shares. NaN stands for a score that no token may have."""
    s, mask = trace["s"], trace["mask"]
    count = mask.sum(0).double()
    mean = (s * mask).sum(0) / count
    variance = (((s - mean) ** 2) * mask).sum(0) / count
    best = s.masked_fill(~mask, -math.inf).topk(config["moe.top_k"], dim=1).values
    best = best[torch.isfinite(best)]
    bins = ((best + 1) * (HISTOGRAM_BINS / 2)).floor().long().clamp(0, HISTOGRAM_BINS - 1)
    histogram = torch.bincount(bins, minlength=HISTOGRAM_BINS).double() / len(best)
    return {"mean_x": trace["x"].mean(0), "mean_c": trace["c"].mean(0), "score_mean": mean, "score_var": variance,
            "histogram": histogram}
