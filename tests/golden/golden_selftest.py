"""Tests of the reference model itself: finite differences, torch's own layers and optimizer, orthonormality, the rules
of the steps against each other, and that a run repeats. `make_golden.py --selftest` runs them.
"""

import torch

import ermoe_model as model
import ermoe_optim as optim
from make_golden import decision_margin, initial_parameters, loss_of, make_inputs, run_case, training_step

EXACT = ("newton_schulz", "gram_schmidt", "cholesky_qr", "cayley")


def setup(config, has_allow, seed=1):
    inputs, p = make_inputs(config, has_allow, seed)
    buffers = {n: torch.zeros(shape, dtype=torch.float64) for n, shape in model.buffer_shapes(config).items()}
    return inputs, p, buffers


def gradients_match_differences(cases):
    """Along three random directions, with and without statistics from an earlier step; not where a step might change a
    decision (a quantile lies close to some score, in the step that it was taken from)."""
    checks = 0
    for index, (config, has_allow) in enumerate(cases):
        inputs, p, buffers = setup(config, has_allow)
        for _ in range(2):
            _, _, traces, grads = training_step(config, p, buffers, inputs)
            rng = torch.Generator().manual_seed(index)
            clear = min([decision_margin(config, trace, False) for trace in traces.values()] + [1e9]) > 5
            for _ in range(3 * clear):
                along = {n: torch.randn(v.shape, generator=rng, dtype=torch.float64) for n, v in p.items()}
                exact = sum(float((grads[n] * along[n]).sum()) for n in p)
                step = 1e-6
                ends = [float(loss_of(config, {n: p[n] + sign * step * along[n] for n in p}, buffers, inputs, traces)[0])
                        for sign in (1, -1)]
                numeric = (ends[0] - ends[1]) / (2 * step)
                assert abs(exact - numeric) <= 1e-6 * max(1.0, abs(exact)), (index, exact, numeric)
                checks += 1
            model.update_statistics(config, buffers, traces)
    assert checks > 0.8 * 6 * len(cases), checks


def dense_block_matches_torch(cases):
    """A dense block against nn.TransformerEncoderLayer, AdamW against torch.optim.AdamW."""
    config, _ = cases[0]
    inputs, p, _ = setup(config, False)
    width, hidden = config["model.width"], int(config["model.width"] * config["model.mlp_ratio"])
    x = torch.nn.functional.conv2d(inputs["images"], p["patch_embed.proj.weight"], p["patch_embed.proj.bias"],
                                   stride=config["model.patch"]).flatten(2).transpose(1, 2)
    x = x + model.sincos_positions(config)
    for block in range(config["model.depth"]):
        layer = torch.nn.TransformerEncoderLayer(width, config["model.heads"], hidden, 0.0, "gelu", model.NORM_EPS,
                                                 batch_first=True, norm_first=True, dtype=torch.float64)
        theirs = {"self_attn.in_proj_weight": "attn.qkv.weight", "self_attn.in_proj_bias": "attn.qkv.bias",
                  "self_attn.out_proj.weight": "attn.proj.weight", "self_attn.out_proj.bias": "attn.proj.bias",
                  "linear1.weight": "mlp.fc1.weight", "linear1.bias": "mlp.fc1.bias",
                  "linear2.weight": "mlp.fc2.weight", "linear2.bias": "mlp.fc2.bias",
                  "norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias", "norm2.weight": "norm2.weight",
                  "norm2.bias": "norm2.bias"}
        layer.load_state_dict({key: p[f"blocks.{block}.{name}"] for key, name in theirs.items()})
        x = layer(x)
    x = torch.nn.functional.layer_norm(x.mean(1), (width,), p["fc_norm.weight"], p["fc_norm.bias"], model.NORM_EPS)
    logits = model.forward(config, p, {}, inputs["images"])[0]
    assert torch.allclose(x @ p["head.weight"].T + p["head.bias"], logits, rtol=1e-12, atol=1e-13)


def adamw_matches_torch(cases):
    config, _ = cases[0]
    config = dict(config, **{"optim.clip": 0.5})
    inputs, p, _ = setup(config, False)
    leaves = {n: v.clone().requires_grad_() for n, v in p.items()}
    groups = [{"params": [leaves[n] for n in p if optim.decays(config, n, p[n]) == decay],
               "weight_decay": config["optim.weight_decay"] * decay} for decay in (True, False)]
    theirs = torch.optim.AdamW(groups, lr=config["optim.lr"], eps=config["optim.eps"])
    ours = optim.Optimizer(config)
    for _ in range(5):
        grads = training_step(config, p, {}, inputs)[3]
        p = ours.step(p, grads)
        theirs.zero_grad()
        loss_of(config, leaves, {}, inputs)[0].backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), 0.5)
        theirs.step()
    # torch adds 1e-6 to the norm that it divides by
    assert all(torch.allclose(p[n], leaves[n], rtol=1e-6, atol=1e-7) for n in p)


def factors_stay_orthonormal(cases):
    for index, (config, has_allow) in enumerate(cases):
        final, method = run_case(config, has_allow, 1)[0], config["moe.orthogonality"]
        factors = {n: v for n, v in final.items() if n.startswith("final.") and model.is_orthonormal(n)}
        for name, q in factors.items():
            assert method not in EXACT or optim.residual(q) <= 5e-6, (index, name, optim.residual(q))
        if method in EXACT and config["moe.basis"] == "disjoint" and config["moe.router"] == "ermoe":
            p = {n[len("final."):]: v for n, v in factors.items()}
            for block in model.moe_blocks(config):
                basis = model.bases(config, p, f"blocks.{block}.moe")
                overlap = optim.transpose(basis) @ p[f"blocks.{block}.moe.experts.V1"]
                # the basis itself is orthonormal to 2e-6 only, and so is the projection off it
                assert float(overlap.abs().max()) < 1e-8, (index, overlap.abs().max())


def steps_agree_to_first_order(_):
    """All retractions follow the same tangent; the two QR rules are the same map; square matrices too."""
    rng = torch.Generator().manual_seed(3)
    for rows, columns in ((9, 4), (6, 6)):
        q = torch.linalg.qr(torch.randn(2, rows, columns, generator=rng, dtype=torch.float64)).Q
        a = torch.randn(2, rows, columns, generator=rng, dtype=torch.float64)
        step = lambda method, lr: optim.retract(method, optim.unretracted_step(method, q, a, lr))
        tangent = optim.tangent_step(q, a, 1.0) - q
        for method in EXACT:
            for lr in (1e-3, 1e-4):
                error = float((step(method, lr) - q - lr * tangent).abs().max())
                assert error <= 20 * lr * lr, (method, lr, error)
        assert torch.allclose(step("gram_schmidt", 0.1), step("cholesky_qr", 0.1), rtol=0, atol=1e-13)
        skewed = (q + 0.1 * a).requires_grad_()
        penalty = ((optim.transpose(skewed) @ skewed - optim.identity(q)) ** 2).sum() * 0.3
        (exact,) = torch.autograd.grad(penalty, skewed)
        assert torch.allclose(exact, optim.penalty_gradient(skewed.detach(), 0.3), rtol=1e-12, atol=1e-13)


def full_basis_carries_no_signal(cases):
    """The trap: with R = D every expert gives the same cosine."""
    config = next(c for c, _ in cases if c["moe.router"] == "ermoe" and c["moe.score"] == "context_cosine")
    rng = torch.Generator().manual_seed(5)
    x, c = (torch.randn(20, 8, generator=rng, dtype=torch.float64) for _ in range(2))
    full = torch.linalg.qr(torch.randn(3, 8, 8, generator=rng, dtype=torch.float64)).Q
    spread = lambda basis: float(model.scores(config, basis, x, c, 0 * x[0], 0 * x[0]).std(dim=1).max())
    assert spread(full) < 1e-14 < 0.1 < spread(full[:, :, :2])
    zero = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    s = model.scores(config, full[:, :, :2], zero, c[:1], 0 * c[0], 0 * c[0])
    (grad,) = torch.autograd.grad(s.sum(), zero)
    assert float(s.abs().max()) == 0 and float(grad.abs().max()) == 0


def runs_repeat(cases):
    for config, has_allow in cases[::4]:
        first, second = (run_case(config, has_allow, 2)[0] for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert set(initial_parameters(config, torch.Generator())) == set(model.parameter_shapes(config))


def options_are_exercised(cases):
    """Fallbacks, free experts, missing slots, floors, clipping and losses that fall do occur in the cases."""
    seen = set()
    for config, has_allow in cases:
        tensors, _ = run_case(config, has_allow, 1)
        ids = torch.cat([v for n, v in tensors.items() if n.startswith("ids.")] or [torch.zeros(0)])
        seen |= {"missing"} if bool((ids == -1).any()) else set()
        seen |= {"free"} if bool((ids >= config["moe.experts"]).any()) else set()
        weights = torch.cat([v for n, v in tensors.items() if n.startswith("weights.")] or [torch.zeros(0)])
        if config["moe.combine"] == "normalized" and config["moe.router"] == "ermoe":
            seen |= {"floor"} if bool(((weights > 0) & (weights < 0.01)).any()) else set()
        norm = sum(float((v * v).sum()) for n, v in tensors.items() if n.startswith("grad.")) ** 0.5
        if config["optim.clip"]:
            seen.add("clipped" if norm > config["optim.clip"] else "unclipped")
        assert tensors["losses"][-1] < tensors["losses"][0]
    assert seen == {"missing", "free", "floor", "clipped", "unclipped"}, seen


def run(cases):
    for test in (gradients_match_differences, dense_block_matches_torch, adamw_matches_torch, factors_stay_orthonormal,
                 steps_agree_to_first_order, full_basis_carries_no_signal, runs_repeat, options_are_exercised):
        test(cases)
        print(f"{test.__name__}: ok")
    return 0
