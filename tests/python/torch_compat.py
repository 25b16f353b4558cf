"""tools/ermoe_torch.py against the engine: logits, features of two towers, chosen experts, weights and scores of every checkpoint that
ermoe_torch_cases writes agree to 1e-5; exported CLIP weights give the same features in an independent model and in the engine; ids of
captions are those of tests/golden/text; and what cannot be loaded is refused by one sentence.

    python3 torch_compat.py build/cpu/tests/ermoe_torch_cases

Ends with 77, as a test that was skipped, where PyTorch is not installed (Debian: python3-torch; third_party/install.sh --golden).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import torch
except ImportError:
    print("skipped: there is no PyTorch (Debian's package python3-torch)")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden")
sys.path[:0] = [os.path.join(HERE, "..", "..", "tools"), GOLDEN]
import ermoe_torch  # noqa: E402

TOLERANCE = 1e-5
faults = []


def check(what, holds):
    if not holds:
        faults.append(what)
        print(f"FAILED  {what}")


def distance(a, b):
    return float((a.float() - b.float()).abs().max()) if a.numel() else 0.0


def compare_routing(name, own, expected, prefix):
    """`own`: {name of a block: Routing}."""
    worst = 0.0
    blocks = [key[len(f"{prefix}ids."):] for key in expected if key.startswith(f"{prefix}ids.")]
    check(f"{name}: routing of blocks {sorted(own)}, not {sorted(blocks)}", sorted(own) == sorted(blocks))
    for block in blocks:
        ids, weights, scores = (t.flatten(0, 1) for t in (own[block].ids, own[block].weights, own[block].scores))
        check(f"{name}: {prefix}experts of block {block}", torch.equal(ids.int(), expected[f"{prefix}ids.{block}"]))
        for what, values in (("weights", weights), ("scores", scores)):
            off = distance(values, expected[f"{prefix}{what}.{block}"])
            check(f"{name}: {prefix}{what} of block {block} are {off:.1e} apart", off < TOLERANCE)
            worst = max(worst, off)
    return worst


def compare_two_towers(name, model, expected, prefix):
    with torch.no_grad():
        more = model.text_features(expected["more"])
        own = {"more_features": more, "image_features": model.image_features(expected["images"]),
               "text_features": model.text_features(expected["tokens"]), "logits": model(expected["images"], expected["tokens"])}
    worst = 0.0
    for what, values in own.items():
        wanted = expected[f"{prefix}{what}"]
        wanted = wanted + expected[f"{prefix}bias"] if what == "logits" and f"{prefix}bias" in expected else wanted
        # Logits are cosines times a scale of up to 100: what rounding does to a cosine is multiplied by it.
        off = distance(values, wanted) / (float(model.logit_scale.exp()) if what == "logits" else 1.0)
        check(f"{name}: {prefix}{what} are {off:.1e} apart", off < TOLERANCE)
        worst = max(worst, off)
    routes = {f"{tower}.blocks.{i}": r for tower in ("image", "text") for i, r in getattr(model, tower).routing.items()}
    return max(worst, compare_routing(name, routes, expected, prefix))


def compare(name, model, expected, prefix):
    """Largest deviations of one model from what the engine wrote."""
    if "tokens" in expected:
        return compare_two_towers(name, model, expected, prefix)
    allow = expected["allow"].bool() if "allow" in expected else None
    with torch.no_grad():
        logits = model(expected["images"], allow)
    worst = distance(logits, expected[f"{prefix}logits"])
    check(f"{name}: {prefix}logits are {worst:.1e} apart", worst < TOLERANCE)
    return max(worst, compare_routing(name, {str(i): r for i, r in model.routing.items()}, expected, prefix))


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


def check_clip_export(program, folder):
    """Dense dual encoders under CLIP's names: an independent model of CLIP, and the engine that loads them, find the same features."""
    import make_clip_golden as clip
    both = [("open_clip", clip.OPEN_CLIP), ("hugging_face", clip.HUGGING_FACE)]
    for case in ("two towers, CLIP's form", "two towers, folded"):
        path = os.path.join(folder, case)
        expected = ermoe_torch.read_safetensors(os.path.join(path, "expected.safetensors"))[0]
        model = ermoe_torch.load(path)
        s, t = model.image.settings, model.text.settings
        sizes = {"patch": s.patch, "depth": s.depth, "heads": s.heads, "text_depth": t.depth, "text_heads": t.heads, "activation": s.activation}
        for names, theirs in both:
            tensors = ermoe_torch.clip_state_dict(model, names)
            weights = {name: tensor.double() for name, tensor in tensors.items()}
            found = clip.clip_features(theirs, weights, sizes, expected["images"].double(), expected["tokens"].long())
            file = os.path.join(path, f"{names}.safetensors")
            ermoe_torch.save_safetensors(tensors, file)
            subprocess.run([program, path, file, s.activation], check=True)
            again = ermoe_torch.read_safetensors(os.path.join(path, "again.safetensors"))[0]
            for what, independent in zip(("image_features", "text_features"), found):
                for who, off in (("CLIP", distance(independent, expected[what])), ("the engine", distance(again[what], expected[what]))):
                    check(f"{case} as {names}: {what} of {who} are {off:.1e} apart", off < TOLERANCE)
            check(f"{case} as {names}: scale", distance(again["logit_scale"], model.logit_scale) == 0)
            print(f"ok      {case} as {names}")


def check_clip_settings(folder):
    load = lambda case: ermoe_torch.load(os.path.join(folder, f"two towers, {case}"))
    form = ermoe_torch.clip_config(load("CLIP's form"), "hugging_face")
    check("Hugging Face's sizes", form["vision_config"]["hidden_act"] == "quick_gelu" and form["text_config"]["eos_token_id"] == 28
          and form["vision_config"]["intermediate_size"] == 15 and form["projection_dim"] == 6)
    plain = ermoe_torch.clip_config(load("sigmoid"))
    check("OpenCLIP's sizes", plain["vision_cfg"]["no_ln_pre"] and plain["text_cfg"]["norm_kwargs"] == {"eps": 1e-6}
          and plain["vision_cfg"]["head_width"] == 4 and not plain["quick_gelu"] and plain["init_logit_bias"] < 0)
    check("a bias has no place beside blocks", "logit_bias" in ermoe_torch.clip_state_dict(load("sigmoid")))
    cases = [("experts in images", "open_clip", "knows no experts in some blocks"), ("dense", "hugging_face", "without model.pre_norm"),
             ("no class token", "open_clip", "knows no experts"), ("sigmoid", "hugging_face", "without model.pre_norm")]
    for case, names, sentence in cases:
        said = refusal(lambda: ermoe_torch.clip_state_dict(load(case), names))
        check(f"{case} is refused for {names}, not \"{said}\"", sentence in said)
    said = refusal(lambda: ermoe_torch.clip_state_dict(ermoe_torch.load(os.path.join(folder, "dense"))))
    check(f"one tower is refused for CLIP, not \"{said}\"", "has two towers" in said)


def check_captions(checkpoint):
    """Ids of captions against those of an independent tokenizer, which a checkpoint has beside its weights."""
    folder = os.path.join(GOLDEN, "text")
    tokenizer, rows, texts = ermoe_torch.CaptionTokenizer(folder, 32), [], []
    with open(os.path.join(folder, "ids.json"), encoding="utf-8") as file:
        for entry in json.load(file):
            if "text" in entry:  # others are bytes that are no text
                texts.append(entry["text"] * entry.get("times", 1) + entry.get("tail", ""))
                rows.append(entry["ids"])
    wrong = [text[:60] for text, own, row in zip(texts, tokenizer(texts).tolist(), rows) if own != row]
    check(f"ids of captions, of {len(texts)}: not those of {wrong}", not wrong and len(texts) > 200)
    check("no tokenizer without its files", ermoe_torch.load(checkpoint).tokenizer is None)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(os.path.join(folder, name), checkpoint)
    ids = ermoe_torch.load(checkpoint).tokenizer("A dog doesn't jump")
    check(f"a checkpoint's tokenizer, not {ids}", ids.tolist() == [[1112, 320, 650, 736, 730, 613, 1113]])


def main(program):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True)
        for name in sorted(os.listdir(folder)):
            compare_case(folder, name)
        check_files(folder)
        check_captions(os.path.join(folder, "two towers, dense"))
        check_clip_settings(folder)
        check_clip_export(program, folder)
        check_refusals(folder)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
