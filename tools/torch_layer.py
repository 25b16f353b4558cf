#!/usr/bin/env python3
"""One ERMoE layer on random tokens, forward and backward, as a PyTorch user would write it: the opponent of `ermoe-bench layer`. Started
under mpirun with a GPU a rank; experts on each rank, or spread over all (two all-to-alls each way). Also one all-to-all by its size.
Weights are plain bf16 matrices and the basis is given: what follows a step is not measured on either side. Prints a JSON line a case.

  mpirun -n 2 --bind-to none tools/torch_layer.py --width 384 --batch 256
"""
import argparse
import json
import os
import statistics

import torch
import torch.distributed as dist
import torch.nn.functional as F

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--width", type=int, default=384, help="D; experts are 4D wide")
parser.add_argument("--batch", type=int, default=256, help="images a rank, of 197 tokens")
parser.add_argument("--experts", type=int, default=8)
parser.add_argument("--top-k", type=int, default=2)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--warmup", type=int, default=5)
args = parser.parse_args()

rank, world = int(os.environ.get("OMPI_COMM_WORLD_RANK", 0)), int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1))
local = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))
os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
os.environ.setdefault("MASTER_PORT", "29511")
torch.cuda.set_device(local)
device = torch.device("cuda", local)
dist.init_process_group("nccl", rank=rank, world_size=world, device_id=device)
D, E, K, HIDDEN, N = args.width, args.experts, args.top_k, 4 * args.width, args.batch * 197
R = D // E
torch.manual_seed(rank)


class Exchange(torch.autograd.Function):
    """Rows to other ranks; their gradients come back the same way."""

    @staticmethod
    def forward(ctx, rows, sends, receives):
        ctx.counts = sends, receives
        out = rows.new_empty(sum(receives), rows.shape[1])
        dist.all_to_all_single(out, rows, receives, sends)
        return out

    @staticmethod
    def backward(ctx, grad):
        sends, receives = ctx.counts
        out = grad.new_empty(sum(sends), grad.shape[1])
        dist.all_to_all_single(out, grad.contiguous(), sends, receives)
        return out, None, None


def mlp(rows, counts, w1, w2):
    offsets = torch.cumsum(counts, 0).to(torch.int32)
    return torch._grouped_mm(F.gelu(torch._grouped_mm(rows, w1, offsets), approximate="tanh"), w2, offsets)


def layer(x, c, basis, w1, w2, spread):
    """x, c (N, D) bf16; basis (D, E*R); w1 (El, D, 4D), w2 (El, 4D, D)."""
    zx, zc = ((t @ basis).view(-1, E, R).float() for t in (x, c))
    weight, expert = (F.normalize(zx, dim=-1) * F.normalize(zc, dim=-1)).sum(-1).topk(K, -1)
    weight = weight.clamp_min(1e-4)
    weight = weight / weight.sum(-1, keepdim=True)
    flat = expert.reshape(-1)
    order = torch.argsort(flat, stable=True)
    token = order // K
    rows, counts = x[token], torch.bincount(flat, minlength=E)
    if not spread:
        y = mlp(rows, counts, w1, w2)
    else:
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts)
        sends, by_rank = counts.view(world, -1).sum(1).tolist(), theirs.view(world, -1)
        receives = by_rank.sum(1).tolist()
        came = Exchange.apply(rows, sends, receives)
        ids = torch.arange(E // world, device=device).repeat(world).repeat_interleave(theirs)
        by_expert = torch.argsort(ids, stable=True)
        done = mlp(came[by_expert], by_rank.sum(0), w1, w2)
        y = Exchange.apply(torch.empty_like(done).index_copy(0, by_expert, done), receives, sends)
    y = y * weight.reshape(-1)[order].unsqueeze(1).to(y.dtype)
    return torch.zeros(N, D, dtype=y.dtype, device=device).index_add_(0, token, y)


def slowest_ms(work):
    """The median over steps of the slowest rank's time."""
    times = []
    for step in range(args.warmup + args.steps):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        dist.barrier()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        ms = torch.tensor(start.elapsed_time(end), device=device)
        dist.all_reduce(ms, dist.ReduceOp.MAX)
        if step >= args.warmup:
            times.append(ms.item())
    return statistics.median(times)


def report(**values):
    if rank == 0:
        print(json.dumps(values), flush=True)


def parameter(*shape, scale=0.02):
    return (scale * torch.randn(*shape, device=device)).bfloat16().requires_grad_()


x, c = (torch.randn(N, D, device=device).bfloat16().requires_grad_() for _ in range(2))
dy = torch.randn(N, D, device=device).bfloat16()
torch.manual_seed(7)
basis = torch.linalg.qr(torch.randn(D, D, device=device))[0][:, : E * R].bfloat16().requires_grad_()
for spread in (False, True):
    held = E // world if spread else E
    w1, w2 = parameter(held, D, HIDDEN), parameter(held, HIDDEN, D)

    def both_ways():
        for t in (x, c, basis, w1, w2):
            t.grad = None
        layer(x, c, basis, w1, w2, spread).backward(dy)

    report(case="experts spread" if spread else "experts on each rank", width=D, batch=args.batch, ranks=world, ms=slowest_ms(both_ways))
whole = torch.randn(16 << 20, device=device)  # 64 MiB
other = torch.empty_like(whole)


def exchanges():
    for _ in range(10):
        dist.all_to_all_single(other, whole)


ms = slowest_ms(exchanges) / 10
report(case="all_to_all of 64 MiB", ranks=world, ms=ms, bus_gb_s=whole.numel() * 4 / world * (world - 1) / ms / 1e6)
dist.destroy_process_group()
