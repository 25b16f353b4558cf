# The part of programs.sh about dense models that become ones with experts, and about Python. Sourced by it.

# begins_as RUN DENSE: its first evaluation has the accuracy and the loss of the other's last.
begins_as() {
  python3 - "$@" >out <<'EOP'
import json, sys
rows = [[json.loads(line) for line in open(run + "/metrics.jsonl")] for run in sys.argv[1:]]
first, last = ([row for row in r if row["split"] == "eval"][i] for r, i in zip(rows, (0, -1)))
score = "rsum" if "rsum" in last else "accuracy"
print(first[score], last[score], first["loss"], last["loss"])
sys.exit(0 if first[score] == last[score] and abs(first["loss"] - last["loss"]) < 1e-5 * last["loss"] else 1)
EOP
}

test_upcycling() {
  section "experts from a dense network"
  local dense=(--data "$data" --model.width 32 --model.depth 2 --model.heads 2 --train.batch 32 --train.log_every 1)
  local experts=("${dense[@]}" --moe.experts 4 --moe.basis leading --moe.combine softmax --init dense)
  expect "a dense run" 0 "done" train "${dense[@]}" --moe.layers none --train.steps 30 --out dense
  expect "becomes one with experts" 0 "dense/checkpoints/step-30/model.safetensors: block 1: 4 experts each made from the dense network \(SVD\)" \
    train "${experts[@]}" --train.steps 1 --optim.lr 1e-12 --optim.min_lr 0 --out upcycled
  check "and says nothing of what would be missing" test -z "$(cat out err | grep 'not in the')"
  check "whose first evaluation is the dense one's last" begins_as upcycled dense
  expect "which trains on" 0 "done" train "${experts[@]}" --train.steps 6 --optim.lr 1e-4 --train.upcycle_noise 0.01 --out further
  expect "of a lower rank, with its error" 0 "SVD, cut to rank 24 of 32: a relative error of up to 0\.[0-9]+ \(blocks.1.mlp.fc[12].weight\)" \
    train "${experts[@]}" --train.steps 1 --moe.rank 24 --out low_rank
  expect "or with new experts, where asked for" 0 "4 not in the model" \
    train "${experts[@]}" --train.steps 1 --train.upcycle false --moe.hidden 32 --out left_new
  refused "experts of another width" "blocks.1.mlp.fc1.weight is \(128, 32\).*moe.hidden must be 128, not 48" "${experts[@]}" --moe.hidden 48
  refused "noise without a dense network" "train.upcycle_noise" "${dense[@]}" --train.upcycle_noise 0.1
}

# Two towers: a dense run becomes one with experts in both, also by way of CLIP's names, and the tower of a classifier is taken.
test_upcycling_towers() {
  section "two towers from others' weights"
  mkdir -p shades/images
  local shade names
  echo image,caption,split >shades/captions.csv
  for shade in 0 1 2 3 4 5 6 7 8 9 a b; do
    picture shades/images/$shade.ppm ${shade}0 40 c0
    echo "$shade.ppm,a picture of shade $shade,$([[ $shade =~ [89ab] ]] && echo val || echo train)" >>shades/captions.csv
  done
  local form=(--model.pre_norm true --model.patch_bias off --model.norm_eps 1e-5)
  local towers=(--data shades --model.image_size 16 --model.patch 8 --model.width 16 --model.depth 2 --model.heads 2 --text.depth 2 --text.width 16
    --text.heads 2 --text.context 12 --retrieval.projection 8 --train.batch 4)
  local still=(--train.steps 1 --optim.lr 1e-12 --optim.min_lr 0) own=(--text.tokenizer towers/checkpoints/step-6)
  local experts=(--moe.layers every:2 --text.moe_layers last:1 --moe.experts 4 --moe.combine softmax)
  local made="image tower's block 1: 4 experts each made from the dense network \(SVD\); text tower's block 1: 4 experts"
  expect "a dense run" 0 "done" train "${towers[@]}" "${form[@]}" --moe.layers none --train.steps 6 --out towers
  expect "becomes one with experts in both" 0 "$made" train "${towers[@]}" "${form[@]}" "${own[@]}" "${experts[@]}" "${still[@]}" --init towers --out both
  check "whose first evaluation is the dense one's last" begins_as both towers
  expect "the vocabulary of the weights" 0 "text.tokenizer: that of towers/" train "${towers[@]}" "${form[@]}" "${still[@]}" --text.vocabulary 514 --init towers --out worded
  expect "a run of other words" 0 "done" train "${towers[@]}" "${form[@]}" "${still[@]}" --text.vocabulary 514 --out wordless
  refused "another vocabulary" "text.tokenizer: wordless/tokenizer numbers tokens otherwise than the one in towers/" "${towers[@]}" "${form[@]}" \
    --text.tokenizer wordless/tokenizer --init towers
  expect "a classifier's tower" 0 "[0-9]+ not in the file \(image.head.weight, text.*2 not in the model \(head.bias, head.weight\)" \
    train "${towers[@]}" --model.width 32 --model.patch 4 --moe.layers none --train.steps 1 --init dense --out taken
  if ! /usr/bin/python3 -c "import torch" 2>/dev/null; then
    skip "there is no PyTorch to export CLIP's weights with"
    return
  fi
  PYTHONPATH="$tests/../tools" /usr/bin/python3 - towers/checkpoints/step-6 >out 2>err <<'EOP'
import sys
import ermoe_torch
model = ermoe_torch.load(sys.argv[1])
ids = model.tokenizer(["a picture of shade 8"])
for names in ("open_clip", "hugging_face"):
    ermoe_torch.save_safetensors(ermoe_torch.clip_state_dict(model, names), f"{names}.safetensors")
sys.exit(0 if int(ids.max()) == model.text.settings.end_token else 1)
EOP
  report "CLIP's names by ermoe_torch.py" $?
  for names in open_clip hugging_face; do
    expect "from $names's names" 0 "$made" train "${towers[@]}" "${form[@]}" "${own[@]}" "${experts[@]}" "${still[@]}" --init $names.safetensors --out $names
    check "whose first evaluation is the dense one's last" begins_as $names towers
  done
  expect "another epsilon is told" 0 "model.norm_eps stays 1e-06, where CLIP's own models have 1e-05" train "${towers[@]}" "${form[@]}" "${own[@]}" \
    "${still[@]}" --moe.layers none --model.norm_eps 1e-6 --init open_clip.safetensors --out epsilon
  refused "settings that are not CLIP's" "give --model.pre_norm true --model.patch_bias off" \
    "${towers[@]}" "${own[@]}" --moe.layers none --init open_clip.safetensors
}

# Probabilities of a picture of one colour by ermoe-predict and by PyTorch agree.
test_python() {
  section "ermoe_torch.py"
  if ! /usr/bin/python3 -c "import torch" 2>/dev/null; then
    skip "there is no PyTorch (Debian's package python3-torch)"
    return
  fi
  picture colour.ppm ff 80 20
  for name in dense upcycled steady; do
    run predict --run $name --format json --top 99 --device cpu colour.ppm
    PYTHONPATH="$tests/../tools" /usr/bin/python3 - $name out >python.out 2>err <<'EOP'
import json, sys
import ermoe_torch, torch
model = ermoe_torch.load(sys.argv[1])
side = model.settings.image_size
image = torch.tensor([0xff, 0x80, 0x20]).reshape(1, 3, 1, 1).expand(1, 3, side, side) / 255
with torch.no_grad():
    p = torch.softmax(model(model.normalise(image)), dim=1)[0]
engine = json.load(open(sys.argv[2]))[0]["predictions"]
apart = max(abs(float(p[e["index"]]) - e["probability"]) for e in engine)
print(f"{sys.argv[1]}: {apart:.1e} apart")
sys.exit(0 if apart < 1e-5 and len(engine) == len(p) else 1)
EOP
    report "the same probabilities from $name" $?
  done
}
