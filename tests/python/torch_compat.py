"""tools/ermoe_torch.py against the engine: logits, chosen experts, weights and scores of every checkpoint that
ermoe_torch_cases writes agree to 1e-5, and what cannot be loaded is refused by one sentence.

    python3 torch_compat.py build/cpu/tests/ermoe_torch_cases

Ends with 77, as a test that was skipped, where PyTorch is not installed (Debian: python3-torch; third_party/install.sh --golden).
"""

import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
except ImportError:
    print("skipped: there is no PyTorch (Debian's package python3-torch)")
    sys.exit(77)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import ermoe_torch  # noqa: E402

TOLERANCE = 1e-5
faults = []


def check(what, holds):
    if not holds:
        faults.append(what)
        print(f"FAILED  {what}")


def distance(a, b):
    return float((a.float() - b.float()).abs().max()) if a.numel() else 0.0


def compare(name, model, expected, prefix):
    """Largest deviations of one model from what the engine wrote."""
    allow = expected["allow"].bool() if "allow" in expected else None
    with torch.no_grad():
        logits = model(expected["images"], allow)
    worst = distance(logits, expected[f"{prefix}logits"])
    check(f"{name}: {prefix}logits are {worst:.1e} apart", worst < TOLERANCE)
    blocks = [int(key.rpartition(".")[2]) for key in expected if key.startswith(f"{prefix}ids.")]
    check(f"{name}: routing of blocks {sorted(model.routing)}, not {sorted(blocks)}", sorted(model.routing) == sorted(blocks))
    for block in blocks:
        routing = model.routing[block]
        ids, weights, scores = (t.flatten(0, 1) for t in (routing.ids, routing.weights, routing.scores))
        check(f"{name}: {prefix}experts of block {block}", torch.equal(ids.int(), expected[f"{prefix}ids.{block}"]))
        for what, own in (("weights", weights), ("scores", scores)):
            off = distance(own, expected[f"{prefix}{what}.{block}"])
            check(f"{name}: {prefix}{what} of block {block} are {off:.1e} apart", off < TOLERANCE)
            worst = max(worst, off)
    return worst


def compare_case(folder, name):
    path = os.path.join(folder, name)
    expected = ermoe_torch.read_safetensors(os.path.join(path, "expected.safetensors"))[0]
    model = ermoe_torch.load(path, averaged=False)
    if "labels" in expected:
        check(f"{name}: region mask", torch.equal(model.region_mask(expected["labels"]), expected["allow"].bool()))
    worst = compare(name, model, expected, "")
    if "averaged.logits" in expected:
        apart = distance(expected["averaged.logits"], expected["logits"])
        check(f"{name}: averages differ from the last weights", apart > TOLERANCE)
        worst = max(worst, compare(name, ermoe_torch.load(path), expected, "averaged."))
    print(f"ok      {name}: {worst:.1e}")


def refusal(load):
    try:
        load()
    except ermoe_torch.CannotLoad as fault:
        return str(fault)
    return "nothing was refused"


def change_state(path, change):
    file = os.path.join(path, "state.json")
    with open(file) as f:
        state = json.load(f)
    config = json.loads(state["config"])
    change(state, config)
    state["config"] = json.dumps(config)
    with open(file, "w") as f:
        json.dump(state, f)


def check_refusals(folder):
    path = os.path.join(folder, "defaults")
    cases = [
        ("another router", lambda s, c: c["moe"].update(router="hashing"), "moe.router hashing is not known"),
        ("other sizes", lambda s, c: c["moe"].update(router="ermoe", hidden=48), "blocks.1.moe.experts.U1 is (4, 24, 16) but the settings "
                                                                                "say (4, 48, 16)"),
        ("another depth", lambda s, c: (c["moe"].update(hidden=24), c["model"].update(depth=3)), "blocks.2.attn.proj.bias is missing"),
        ("another format", lambda s, c: s.update(format=2), "format 2, but ermoe_torch.py reads 1"),
    ]
    for name, change, sentence in cases:
        change_state(path, change)
        said = refusal(lambda: ermoe_torch.load(path))
        check(f"{name} is refused, not \"{said}\"", sentence in said and "\n" not in said)
    said = refusal(lambda: ermoe_torch.load(folder))
    check(f"a folder without a checkpoint is refused, not \"{said}\"", "neither a run folder nor a checkpoint" in said)
    said = refusal(lambda: ermoe_torch.timm_state_dict(ermoe_torch.load(os.path.join(folder, "untied"))))
    check(f"experts are refused for timm, not \"{said}\"", "timm's vision transformers know no experts" in said)


def check_files(folder):
    """A dense model under timm's names, and a file written here is read back."""
    model = ermoe_torch.load(os.path.join(folder, "dense"))
    tensors = ermoe_torch.timm_state_dict(model)
    wanted = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.qkv.bias",
              "blocks.0.attn.q_norm.weight", "blocks.0.ls1.gamma", "blocks.1.mlp.fc1.weight", "norm.bias", "head.weight"}
    check("timm's names", wanted <= set(tensors))
    path = os.path.join(folder, "again.safetensors")
    ermoe_torch.save_safetensors(tensors, path)
    again = ermoe_torch.read_safetensors(path)[0]
    check("what is written is read back", again.keys() == tensors.keys() and all(torch.equal(again[k], tensors[k]) for k in again))


def main(program):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True)
        for name in sorted(os.listdir(folder)):
            compare_case(folder, name)
        check_files(folder)
        check_refusals(folder)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
