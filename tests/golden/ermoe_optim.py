"""One optimizer step of the reference model: AdamW, global clipping, and the steps that keep factors orthonormal.

`Optimizer.step` is the order of things in one training step after the backward pass. Every matrix function takes a
stack (..., m, n) with m >= n. Read next: make_golden.py.
"""

import math

import torch

from ermoe_model import bases, is_orthonormal, moe_blocks

CONVERGED = 1e-13
MAX_ITERATIONS = 40


def transpose(q):
    return q.transpose(-1, -2)


def identity(q):
    return torch.eye(q.shape[-1], dtype=q.dtype)


def residual(q):
    """max |I - QᵀQ| over the whole stack."""
    return float((identity(q) - transpose(q) @ q).abs().max())


def newton_schulz(q):
    """The polar factor: Q += Q (I - QᵀQ) / 2 until nothing is left to do in double precision."""
    for _ in range(MAX_ITERATIONS):
        if residual(q) <= CONVERGED:
            break
        q = q + 0.5 * q @ (identity(q) - transpose(q) @ q)
    return q


def gram_schmidt(q):
    """Classical Gram-Schmidt, each column projected twice."""
    columns = []
    for j in range(q.shape[-1]):
        v = q[..., j:j + 1]
        for _ in range(2 if columns else 0):
            basis = torch.cat(columns, dim=-1)
            v = v - basis @ (transpose(basis) @ v)
        columns.append(v / torch.linalg.vector_norm(v, dim=-2, keepdim=True))
    return torch.cat(columns, dim=-1)


def cholesky_qr(q):
    """Q R^-1 with RᵀR = QᵀQ and a positive diagonal."""
    lower = torch.linalg.cholesky(transpose(q) @ q)
    return transpose(torch.linalg.solve_triangular(lower, transpose(q), upper=False))


def tangent_step(q, direction, lr):
    product = transpose(q) @ direction
    return q - lr * (direction - q @ (0.5 * (product + transpose(product))))


def cayley_step(q, direction, lr):
    """(I + lr/2 W)^-1 (I - lr/2 W) Q with W = P A Qᵀ - Q Aᵀ P, P = I - QQᵀ/2 (Wen and Yin 2013)."""
    eye = torch.eye(q.shape[-2], dtype=q.dtype)
    left = (eye - 0.5 * q @ transpose(q)) @ direction @ transpose(q)
    w = left - transpose(left)
    return torch.linalg.solve(eye + 0.5 * lr * w, (eye - 0.5 * lr * w) @ q)


def unretracted_step(method, q, direction, lr):
    if method in ("penalty", "none"):
        return q - lr * direction
    return cayley_step(q, direction, lr) if method == "cayley" else tangent_step(q, direction, lr)


def retract(method, q):
    if method in ("penalty", "none"):
        return q
    if method == "gram_schmidt":
        return gram_schmidt(q)
    return cholesky_qr(q) if method == "cholesky_qr" else newton_schulz(q)


def penalty_gradient(q, weight):
    """Of weight * ||QᵀQ - I||²."""
    return 4 * weight * q @ (transpose(q) @ q - identity(q))


def decays(config, name, p):
    """Matrices, except positions, tokens, orthonormal factors; of the experts' stacks the plain W1, W2 (and s where
    asked for): biases and s have two axes there and are no matrices."""
    if ".experts." in name:
        leaf = name.rsplit(".", 1)[1]
        return leaf in ("W1", "W2") or (config["moe.decay_scales"] and leaf in ("s1", "s2"))
    return p.dim() >= 2 and name not in ("cls_token", "pos_embed") and not is_orthonormal(name)


class Optimizer:
    def __init__(self, config):
        self.config, self.steps, self.m, self.v = config, 0, {}, {}

    def step(self, p, grads):
        """New parameters; `grads` are those of the reported loss."""
        config, lr = self.config, self.config["optim.lr"]
        method = config["moe.orthogonality"]
        grads = dict(grads)
        if method == "penalty":
            for name in filter(is_orthonormal, grads):
                grads[name] = grads[name] + penalty_gradient(p[name], config["moe.penalty"])
        size = math.sqrt(sum(float((g * g).sum()) for g in grads.values()))
        factor = config["optim.clip"] / size if 0 < config["optim.clip"] < size else 1.0
        self.steps += 1
        new = {}
        for name, value in p.items():
            direction = self.direction(name, grads[name] * factor)
            if is_orthonormal(name):
                new[name] = unretracted_step(method, value, direction, lr)
            else:
                kept = 1 - lr * config["optim.weight_decay"] if decays(config, name, value) else 1.0
                new[name] = value * kept - lr * direction
        self.restore_orthonormality(new, method)
        return new

    def direction(self, name, grad):
        """Bias-corrected Adam direction."""
        beta1, beta2 = self.config["optim.beta1"], self.config["optim.beta2"]
        self.m[name] = beta1 * self.m.get(name, torch.zeros_like(grad)) + (1 - beta1) * grad
        self.v[name] = beta2 * self.v.get(name, torch.zeros_like(grad)) + (1 - beta2) * grad * grad
        mean = self.m[name] / (1 - beta1 ** self.steps)
        square = self.v[name] / (1 - beta2 ** self.steps)
        return mean / (torch.sqrt(square) + self.config["optim.eps"])

    def restore_orthonormality(self, p, method):
        """Retracts every factor; with disjoint bases the rest of V1 is then projected off its basis and retracted again."""
        config = self.config
        for name in filter(is_orthonormal, p):
            p[name] = retract(method, p[name])
        disjoint = config["moe.router"] == "ermoe" and config["moe.basis"] == "disjoint" and config["moe.expert"] == "eigen"
        if not disjoint or method in ("penalty", "none"):
            return
        for name in (f"blocks.{block}.moe" for block in moe_blocks(config)):
            rest, basis = p[f"{name}.experts.V1"], bases(config, p, name)
            p[f"{name}.experts.V1"] = retract(method, rest - basis @ (transpose(basis) @ rest))
