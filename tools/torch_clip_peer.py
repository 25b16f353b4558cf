#!/usr/bin/env python3
"""Training steps of an image-text dual encoder as a PyTorch user would write them: the opponent of this engine's own steps of the same
shape. Image tower: ViT-B/16 at 224 px, every second block's feed-forward network 8 experts W = U diag(s) Vᵀ of which a token takes 2, by
the cosine of token and context in each expert's leading directions; after the optimizer U and V are retracted by one cubic Newton-Schulz
step. Text tower: 12 dense blocks, width 512, 8 heads, 77 tokens. Contrastive loss with a learned, clamped temperature. bf16 autocast with
tokens kept in bf16 between layers, torch.compile, fused AdamW, TF32 where a product is in float32. Inputs are random and lie on the
device. Prints one JSON line; with --serve one for each line that it reads, and "ready" before, so that others can have the device in between (tools/compare_clip.sh).

  tools/torch_clip_peer.py --batch 256               needs a GPU and PyTorch 2.8 or newer (torch._grouped_mm)
  tools/torch_clip_peer.py --device cpu --small      that it runs at all; PyTorch 1.13 will do
"""
import argparse
import json
import math
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--moe", default="ermoe", choices=["dense", "ermoe"], help="feed-forward networks of the image tower's odd blocks")
parser.add_argument("--hidden", type=int, default=0, help="width of an expert; 0: four times the tower's")
parser.add_argument("--rank", type=int, default=0, help="of a routing basis; 0: an eighth of the tower's width")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--warmup", type=int, default=8)
parser.add_argument("--mode", default="default", help="of torch.compile: default, reduce-overhead, max-autotune")
parser.add_argument("--no-compile", dest="compile", action="store_false")
parser.add_argument("--device", default="cuda")
parser.add_argument("--serve", action="store_true", help="compile and warm up, then measure once for each line of the standard input")
parser.add_argument("--small", action="store_true", help="tiny towers of the same make")
args = parser.parse_args()

cuda = args.device == "cuda"
compiled = args.compile and hasattr(torch, "compile") and cuda
EXPERTS, TOP_K, VOCABULARY, CONTEXT, EMBEDDING = 8, 2, 49408, 77, 512
IMAGE = dict(width=768, heads=12, blocks=12)
TEXT = dict(width=512, heads=8, blocks=12)
SIDE, PATCH = 224, 16
if args.small:
    VOCABULARY, CONTEXT, EMBEDDING, SIDE = 100, 9, 16, 32
    IMAGE, TEXT = dict(width=32, heads=2, blocks=2), dict(width=16, heads=2, blocks=2)


def narrow(x):
    """As tokens are kept between layers: autocast would keep them in float32, which is twice the memory traffic."""
    return x.bfloat16() if cuda else x


class Attention(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if hasattr(F, "scaled_dot_product_attention"):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
            if self.causal:
                scores = scores + torch.full((tokens, tokens), -math.inf, device=x.device).triu(1)
            y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class Dense(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, context):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def grouped(rows, weights, counts):
    """Rows of expert e, which lie together, times weights[e] (in, out)."""
    if cuda:
        return torch._grouped_mm(rows, weights.bfloat16(), torch.cumsum(counts, 0).to(torch.int32))
    return torch.cat([part @ weights[e] for e, part in enumerate(rows.split(counts.tolist()))])


class Reorder(torch.autograd.Function):
    """rows[order]. The gradient goes back by the inverse order: indexing would add it up row by row, though no row is taken twice."""

    @staticmethod
    def forward(ctx, rows, order, inverse):
        ctx.save_for_backward(inverse)
        return rows[order]

    @staticmethod
    def backward(ctx, grad):
        return grad[ctx.saved_tensors[0]], None, None


class EigenExperts(nn.Module):
    def __init__(self, width):
        super().__init__()
        hidden = args.hidden or 4 * width
        self.rank = args.rank or width // 8

        def orthonormal(rows):
            return nn.Parameter(torch.linalg.qr(torch.randn(EXPERTS, rows, width))[0])

        self.V1, self.U1, self.U2, self.V2 = orthonormal(width), orthonormal(hidden), orthonormal(width), orthonormal(hidden)
        self.s1, self.s2 = nn.Parameter(torch.ones(EXPERTS, 1, width)), nn.Parameter(torch.ones(EXPERTS, 1, width))

    def route(self, x, context):
        basis = self.V1[:, :, :self.rank].permute(1, 0, 2).reshape(x.shape[1], -1)
        zx, zc = ((t @ basis.to(t.dtype)).view(-1, EXPERTS, self.rank).float() for t in (x, context))
        weight, expert = (F.normalize(zx, dim=-1) * F.normalize(zc, dim=-1)).sum(-1).topk(TOP_K, -1)
        weight = weight.clamp_min(1e-3)
        return weight / weight.sum(-1, keepdim=True), expert

    def forward(self, x, context):
        shape = x.shape
        x, context = x.reshape(-1, shape[-1]), context.reshape(-1, shape[-1])
        weight, expert = self.route(x, context)
        flat = expert.reshape(-1)
        order = torch.argsort(flat, stable=True)
        inverse = torch.argsort(order)
        counts = (flat.unsqueeze(1) == torch.arange(EXPERTS, device=x.device)).sum(0)  # bincount would break the compiled graph
        up = (self.V1 * self.s1) @ self.U1.transpose(1, 2)    # (E, width, hidden)
        down = (self.V2 * self.s2) @ self.U2.transpose(1, 2)  # (E, hidden, width)
        rows = narrow(x).unsqueeze(1).expand(-1, TOP_K, -1).reshape(-1, shape[-1])
        y = grouped(F.gelu(grouped(Reorder.apply(rows, order, inverse), up, counts), approximate="tanh"), down, counts)
        y = Reorder.apply(y, inverse, order).view(-1, TOP_K, shape[-1])
        return (y * weight.unsqueeze(-1)).sum(1).to(y.dtype).view(shape)


class Block(nn.Module):
    def __init__(self, width, heads, causal, ffn):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.ffn = Attention(width, heads, causal), ffn

    def forward(self, x):
        context = self.attention(self.norm1(x))
        x = x + context
        return x + self.ffn(self.norm2(x), context)


class ImageTower(nn.Module):
    def __init__(self, width, heads, blocks):
        super().__init__()
        self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2 + 1, width))
        sparse = lambda i: args.moe == "ermoe" and i % 2 == 1
        self.blocks = nn.ModuleList(Block(width, heads, False, EigenExperts(width) if sparse(i) else Dense(width)) for i in range(blocks))
        self.norm, self.projection = nn.LayerNorm(width), nn.Linear(width, EMBEDDING, bias=False)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = narrow(torch.cat([self.cls.expand(len(x), -1, -1).to(x.dtype), x], 1) + self.positions)
        for block in self.blocks:
            x = block(x)
        return self.projection(self.norm(x[:, 0]))


class TextTower(nn.Module):
    def __init__(self, width, heads, blocks):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.01 * torch.randn(CONTEXT, width))
        self.blocks = nn.ModuleList(Block(width, heads, True, Dense(width)) for _ in range(blocks))
        self.norm, self.projection = nn.LayerNorm(width), nn.Linear(width, EMBEDDING, bias=False)

    def forward(self, tokens):
        x = narrow(self.embedding(tokens) + self.positions)
        for block in self.blocks:
            x = block(x)
        ends = tokens.argmax(-1)  # the end token has the largest id
        return self.projection(self.norm(x[torch.arange(len(x), device=x.device), ends]))


class DualEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = ImageTower(**IMAGE), TextTower(**TEXT)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images, tokens):
        image, text = F.normalize(self.image(images).float(), dim=-1), F.normalize(self.text(tokens).float(), dim=-1)
        logits = self.log_scale.exp() * image @ text.T
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def retract(factors):
    """One cubic Newton-Schulz step towards the nearest orthonormal matrix, q + q (I - qᵀq) / 2. The residual must be as exact as float32,
    which takes two products in TF32: q is split into parts that have no more digits than that has. The residual is small, so the product
    with it may be coarse."""
    for q in factors:
        high = (q.view(torch.int32) & -8192).view(torch.float32)
        cross = high.mT @ (q - high)
        residual = torch.eye(q.shape[-1], device=q.device) - high.mT @ high - cross - cross.mT
        q.copy_(torch.baddbmm(q, q, residual, alpha=0.5))


def trainer():
    """A function that makes one step and returns the loss, and the model."""
    device = torch.device(args.device)
    model = DualEncoder().to(device)
    loss_of = torch.compile(model, mode=args.mode) if compiled else model
    retract_all = torch.no_grad()(torch.compile(retract) if compiled else retract)
    factors = [p for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] in ("U1", "V1", "U2", "V2")]
    optimizer = torch.optim.AdamW(model.parameters(), 5e-4, weight_decay=0.2, **(dict(fused=True) if cuda else {}))
    images = torch.randn(args.batch, 3, SIDE, SIDE, device=device)
    tokens = torch.randint(1, VOCABULARY - 2, (args.batch, CONTEXT), device=device)
    tokens[torch.arange(args.batch), torch.randint(2, CONTEXT, (args.batch,))] = VOCABULARY - 1

    def step():
        with torch.autocast(args.device, torch.bfloat16, enabled=cuda):
            loss = loss_of(images, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        retract_all(factors)
        with torch.no_grad():
            model.log_scale.clamp_(0, math.log(100))
        return loss

    return step, model


def seconds_of(step, steps):
    """Of each step. On a GPU by events between them, so that the host runs ahead as it does while training."""
    if not cuda:
        ends = [time.perf_counter()]
        for _ in range(steps):
            step()
            ends.append(time.perf_counter())
        return [after - before for before, after in zip(ends, ends[1:])]
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    ends[0].record()
    for end in ends[1:]:
        step()
        end.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in zip(ends, ends[1:])]


def measured(step, model):
    if cuda:
        torch.cuda.reset_peak_memory_stats()  # compiling is over
    times = seconds_of(step, args.steps)
    median = statistics.median(times)
    result = dict(torch=torch.__version__, moe=args.moe, compile=compiled, batch=args.batch, img_s=round(args.batch / median, 2),
                  ms=round(1e3 * median, 2), min_ms=round(1e3 * min(times), 2),
                  params_M=round(sum(p.numel() for p in model.parameters()) / 1e6, 2), loss=round(float(step()), 4))
    if cuda:
        result["peak_GB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return json.dumps(result)


def main():
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    step, model = trainer()
    for _ in range(args.warmup):
        step()
    if not args.serve:
        return print(measured(step, model), flush=True)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(3):  # memory that was given back is taken again, and the clock goes up
            step()
        print(measured(step, model), flush=True)
        if cuda:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
