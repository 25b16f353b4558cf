# The part of programs.sh about dense models that become ones with experts, and about Python. Sourced by it.

# begins_as RUN DENSE: its first evaluation has the accuracy and the loss of the other's last.
begins_as() {
  python3 - "$@" >out <<'EOP'
import json, sys
rows = [[json.loads(line) for line in open(run + "/metrics.jsonl")] for run in sys.argv[1:]]
first, last = ([row for row in r if row["split"] == "eval"][i] for r, i in zip(rows, (0, -1)))
print(first["accuracy"], last["accuracy"], first["loss"], last["loss"])
sys.exit(0 if first["accuracy"] == last["accuracy"] and abs(first["loss"] - last["loss"]) < 1e-5 * last["loss"] else 1)
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
