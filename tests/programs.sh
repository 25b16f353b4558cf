#!/usr/bin/env bash
# The programs from outside: what they print, what they leave on disk, how they end, and how they take being killed.
#   tests/programs.sh build/cpu
# Works in a folder of its own under TMPDIR, which goes when all checks hold. Hostile files: ERMOE_TEST_DATA=FOLDER.
set -u
bin="$(cd "${1:?usage: tests/programs.sh BUILD_FOLDER}" && pwd)/tools"
for program in train eval predict data bench study report compress; do
  [ -x "$bin/ermoe-$program" ] || { echo "$bin/ermoe-$program is not built"; exit 2; }
done
tests="$(cd "$(dirname "$0")" && pwd)"
export GOMP_SPINCOUNT=3000
work="$(mktemp -d)"
cd "$work" || exit 2
passed=0 failed=0 disk=""
random_seed="${ERMOE_TEST_SEED:-$$}"
RANDOM=$random_seed
started=$SECONDS

finish() {
  [ -n "$disk" ] && umount "$disk"
  if [ $failed -eq 0 ]; then rm -rf "$work"; else echo "left for a look: $work (random moments: ERMOE_TEST_SEED=$random_seed)"; fi
}
trap finish EXIT

# report NAME STATUS: one line a check; 0 is ok. What a failed one printed follows.
report() {
  if [ "$2" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok      $1"
  else
    failed=$((failed + 1))
    echo "FAILED  $1"
    [ -s out ] && tail -5 out | sed 's/^/          | /'
    [ -s err ] && tail -5 err | sed 's/^/          ! /'
  fi
}
skip() { echo "skipped $1"; }
section() { echo; echo "$1"; }

# check NAME COMMAND…: holds where the command succeeds.
check() {
  local name="$1"
  shift
  "$@"
  report "$name" $?
}

# run COMMAND…: its output in ./out and ./err, its exit code in $code.
run() {
  "$@" >out 2>err </dev/null
  code=$?
}

# expect NAME CODE PATTERN COMMAND…: the exit code, and a line of its output that matches.
expect() {
  local name="$1" wanted="$2" pattern="$3"
  shift 3
  run "$@"
  [ $code -eq "$wanted" ] && cat out err | grep -qE -- "$pattern"
  report "$name" $?
}

# refused NAME PATTERN FLAGS…: ermoe-train ends with code 2, one sentence that matches, and leaves no run folder.
refused() {
  local name="$1" pattern="$2"
  shift 2
  rm -rf refused
  run train --out refused "$@"
  [ $code -eq 2 ] && grep -qE -- "$pattern" err && [ "$(wc -l <err)" -eq 1 ] && [ ! -e refused ]
  report "$name" $?
}

# json EXPRESSION FILE: Python on the file's JSON (`d`); lines of JSON are a list.
json() {
  python3 - "$@" <<'EOF'
import json, sys
text = open(sys.argv[2]).read()
try:
    d = json.loads(text)
except ValueError:
    d = [json.loads(line) for line in text.splitlines()]
sys.exit(0 if eval(sys.argv[1]) else 1)
EOF
}

# tensors EXPRESSION A B: Python on the tensors of two safetensors files, names to bytes (`a`, `b`).
tensors() {
  python3 - "$@" <<'EOF'
import json, struct, sys
def read(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        body = f.read()
    return {k: body[slice(*v["data_offsets"])] for k, v in header.items() if k != "__metadata__"}
a, b = read(sys.argv[2]), read(sys.argv[3])
sys.exit(0 if eval(sys.argv[1]) else 1)
EOF
}

data="synthetic:size=16,count=256,classes=4"
tiny=(--data "$data" --model.width 32 --model.depth 2 --model.heads 2 --moe.experts 4 --moe.hidden 32
  --train.batch 32 --train.log_every 1)
# Everything random is on.
lively=("${tiny[@]}" --model.dropout 0.1 --model.drop_path 0.1 --augment.mixup 0.8 --augment.cutmix 1 --augment.flip
  --augment.crop_padding 2 --augment.randaugment_n 1 --augment.erasing 0.25 --optim.ema 0.9 --train.accumulate 2
  --optim.warmup_steps 5 --train.eval_every 40 --checkpoint.every 10)
train() { "$bin/ermoe-train" "$@"; }
evaluate() { "$bin/ermoe-eval" "$@"; }
compress() { "$bin/ermoe-compress" "$@"; }
predict() { "$bin/ermoe-predict" "$@"; }
inspect() { "$bin/ermoe-data" inspect "$@"; }
rows() { cat "$1/metrics.jsonl" 2>/dev/null | wc -l; }
checkpoint() { echo "$1/checkpoints/$(cat "$1/checkpoints/latest")"; }
same_files() { cmp -s "$1/model.safetensors" "$2/model.safetensors" && cmp -s "$1/optimizer.safetensors" "$2/optimizer.safetensors"; }

# picture FILE RED GREEN BLUE: a plain 20 x 16 image.
picture() {
  { printf 'P6\n20 16\n255\n'; for ((i = 0; i < 320; i++)); do printf "\\x$2\\x$3\\x$4"; done; } >"$1"
}

# flip_byte FILE: the one in the middle.
flip_byte() {
  local at=$(($(stat -c %s "$1") / 2))
  local old
  old=$(od -An -tu1 -j $at -N 1 "$1")
  printf "\\x$(printf %02x $((old ^ 255)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}

# wait_for PROCESS SECONDS CONDITION…: until it holds; fails where the process ends or the time is up before.
wait_for() {
  local process="$1" deadline=$((SECONDS + $2))
  shift 2
  until "$@"; do
    kill -0 "$process" 2>/dev/null && [ $SECONDS -lt $deadline ] || return 1
    sleep 0.02
  done
}
rows_reach() { [ "$(rows "$1")" -ge "$2" ]; }

# Every loss of the first run is that of the second within a thousandth.
same_losses() {
  json "all(abs(a['loss'] - b['loss']) < 1e-3 * abs(a['loss']) for a, b in zip(d, [__import__('json').loads(l) for l in open('$2')]))" "$1"
}

. "$tests/programs_volumes.sh"
. "$tests/programs_captions.sh"
. "$tests/programs_retrieval.sh"
. "$tests/programs_study.sh"
. "$tests/programs_report.sh"
. "$tests/programs_upcycle.sh"

test_training() {
  section "ermoe-train"
  expect "--help lists every section" 0 "moe.top_k" train --help
  expect "a tiny model trains" 0 "done .*test accuracy" train "${tiny[@]}" --train.steps 48 --out run
  local part whole=0
  for part in config.json metrics.jsonl metrics.csv checkpoints/latest checkpoints/best; do [ -s "run/$part" ] || whole=1; done
  for part in model optimizer; do [ -s "$(checkpoint run)/$part.safetensors" ] || whole=1; done
  for part in state manifest; do [ -s "$(checkpoint run)/$part.json" ] || whole=1; done
  ls run/events.out.tfevents.* >/dev/null 2>&1 || whole=1
  report "the run folder is complete" $whole
  check "it learned" json "d[-1]['split'] == 'eval' and d[-1]['accuracy'] > 0.8" run/metrics.jsonl
  run train --config run/config.json --out again
  check "its config.json repeats the run bit for bit" same_files "$(checkpoint run)" "$(checkpoint again)"
  run train --config run/config.json --out alone --threads 1
  # Products are cut into other blocks then, and a sum's rounding depends on its block: the numbers agree, their last bits do not.
  check "another number of threads trains the same model, but for rounding" same_losses run/metrics.jsonl alone/metrics.jsonl
  expect "a run folder is not overwritten" 2 "holds a run already" train "${tiny[@]}" --train.steps 2 --out run
  expect "--overfit trains and evaluates on the same images" 0 "8 training and 8 evaluation" \
    train "${tiny[@]}" --overfit 8 --train.batch 8 --train.steps 2 --out overfit
  expect "a preset is a whole recipe" 0 "experts .*8 scored, 2 a token" \
    train --preset fashion-mnist --data "synthetic:size=28,channels=1,count=64" --train.batch 32 --train.epochs 0 --train.steps 1 \
    --optim.warmup_steps 0 --out preset
}

test_refusals() {
  section "what cannot be had"
  refused "an unknown flag, with the nearest one" "did you mean --optim.lr" "${tiny[@]}" --optim.lrr 1
  refused "a flag that lacks its section" "did you mean --moe.top_k" "${tiny[@]}" --top_k 1
  refused "a value out of range" "model.dropout" "${tiny[@]}" --model.dropout 1.5
  refused "a value of the wrong type" "train.steps" "${tiny[@]}" --train.steps many
  refused "K > E" "moe.top_k" "${tiny[@]}" --moe.top_k 5
  refused "heads that do not divide the width" "model.heads" "${tiny[@]}" --model.heads 3
  refused "disjoint bases that do not fit" "moe.basis_rank" "${tiny[@]}" --moe.basis disjoint --moe.basis_rank 9
  refused "R = D" "moe.basis_rank" "${tiny[@]}" --moe.basis_rank 32
  refused "patches that do not divide the image" "model.patch" "${tiny[@]}" --model.patch 5 --model.image_size 16
  refused "classes of volumes" "loss.kind" "${tiny[@]}" --model.dimensions 3
  refused "images as volumes" "data.path" "${tiny[@]}" --model.dimensions 3 --loss.kind l1
  refused "classes as numbers" "loss.kind" "${tiny[@]}" --loss.kind l1
  refused "a batch that does not split" "train.batch" "${tiny[@]}" --train.accumulate 5
  refused "resume and init at once" "train.resume and train.init" "${tiny[@]}" --resume run --init run
  refused "no data" "data.path" --train.steps 1
  refused "data that is not there" "nowhere" --data nowhere
  refused "an unknown preset, with those there are" "cifar10-small" --preset imagenet-xxl
  refused "weights that are not there" "nowhere" "${tiny[@]}" --init nowhere
  refused "a pattern that freezes nothing" "freeze" "${tiny[@]}" --freeze 'layers.*'
  refused "fewer classes than the data has" "model.classes" "${tiny[@]}" --model.classes 3
  echo '{"optim": {"lr": 0.001, "momentun": 0.9}}' >wrong.json
  refused "an unknown key in a file" "wrong.json: optim.momentun" "${tiny[@]}" --config wrong.json
  echo '{"optim": {"lr": ' >wrong.json
  refused "a file that is no JSON" "wrong.json" "${tiny[@]}" --config wrong.json
  OMPI_COMM_WORLD_SIZE=2 refused "one of several processes, in a build for one" "OMPI_COMM_WORLD_SIZE=2" "${tiny[@]}"
  expect "resuming what is no run" 2 "nowhere" train --resume nowhere
}

# interrupt NAME SIGNAL: stops a run in the middle of its way, goes on, and compares with the one never stopped.
interrupt() {
  local name="$1" signal="$2" process
  "$bin/ermoe-train" "${lively[@]}" --train.steps 90 --out "$signal" >out 2>err &
  process=$!
  wait_for $process 60 rows_reach "$signal" $((15 + RANDOM % 40)) && kill "-$signal" $process
  wait $process
  code=$?
  [ $code -eq 0 ] && grep -q "ermoe-train --resume $signal" out
  report "$name: exit 0 and how to go on" $?
  run train --resume "$signal"
  [ $code -eq 0 ] && same_files "$signal/checkpoints/step-90" steady/checkpoints/step-90 &&
    cmp -s "$signal/checkpoints/step-90/ema.safetensors" steady/checkpoints/step-90/ema.safetensors
  report "$name: resumed, it ends with the bits of a run never stopped" $?
  check "$name: each step is logged once" \
    json "[r['step'] for r in d if r['split'] == 'train'] == list(range(1, 91))" "$signal/metrics.jsonl"
}

test_interruptions() {
  section "signals"
  run train "${lively[@]}" --train.steps 90 --out steady
  report "a run with everything random on" $code
  check "its memory stays what it was at step 3" \
    json "len({r['source_calls'] for r in d if r['split'] == 'train' and r['step'] >= 3}) == 1" steady/metrics.jsonl
  run train "${lively[@]}" --train.steps 90 --train.eval_every 1000 --out unwatched
  check "evaluation leaves no trace in training" same_files steady/checkpoints/step-90 unwatched/checkpoints/step-90
  interrupt "SIGTERM" TERM
  interrupt "SIGINT" INT
  interrupt "SIGUSR1" USR1
}

test_kills() {
  section "SIGKILL"
  local i process alive=1 whole=0
  run train "${lively[@]}" --checkpoint.every 3 --train.steps 400 --out spared
  rm -rf killed
  for i in 1 2 3 4 5; do
    if [ "$i" -eq 1 ]; then
      "$bin/ermoe-train" "${lively[@]}" --checkpoint.every 3 --train.steps 400 --out killed >out 2>err &
    else
      "$bin/ermoe-train" --resume killed >out 2>err &
    fi
    process=$!
    wait_for $process 60 test -e killed/checkpoints/latest || whole=1
    wait_for $process 60 rows_reach killed $(($(rows killed) + 1)) || whole=1
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    kill -0 $process 2>/dev/null || alive=0
    kill -KILL $process 2>/dev/null
    wait $process 2>/dev/null
    inspect killed >out 2>err || whole=1
  done
  [ $alive -eq 1 ] || echo "        (the run ended before the last kill)"
  report "five times at random moments, and a whole checkpoint each time" $whole
  run train --resume killed
  [ $code -eq 0 ] && same_files killed/checkpoints/step-400 spared/checkpoints/step-400
  report "resumed, it ends with the bits of a run never killed" $?
  check "each step is logged once" json "[r['step'] for r in d if r['split'] == 'train'] == list(range(1, 401))" killed/metrics.jsonl
}

test_damage() {
  section "damaged checkpoints"
  local steps
  cp -r killed damaged
  flip_byte "$(checkpoint damaged)/model.safetensors"
  steps=$(basename "$(checkpoint damaged)")
  expect "a flipped byte is refused" 2 "model.safetensors: is damaged" inspect "damaged/checkpoints/$steps"
  expect "resuming takes the one before" 0 "latest checkpoint cannot be used" train --resume damaged --train.steps 401
  cp -r killed cut
  truncate -s -7 "$(checkpoint cut)/optimizer.safetensors"
  expect "a cut file is refused" 2 "optimizer.safetensors: is damaged" inspect "$(checkpoint cut)"
  for steps in cut/checkpoints/step-*; do : >"$steps/manifest.json"; done
  expect "a run without a whole checkpoint is refused" 2 "holds no whole checkpoint" train --resume cut
}

test_full_disk() {
  section "a full disk"
  disk="$work/disk"
  mkdir "$disk"
  if ! mount -t tmpfs -o size=8m tmpfs "$disk" 2>/dev/null; then
    disk=""
    skip "no small file system can be mounted here"
    return
  fi
  run train "${tiny[@]}" --train.steps 10 --out "$disk/run"
  report "a run on a small disk" $code
  local size left
  size=$(du -k "$(checkpoint "$disk/run")" | cut -f1)
  left=$(df -k --output=avail "$disk" | tail -1)
  dd if=/dev/zero of="$disk/filler" bs=1k count=$((left - size / 2)) status=none
  expect "no room for a checkpoint: exit 1 and why" 1 "No space left" train --resume "$disk/run" --train.steps 20
  run inspect "$disk/run/checkpoints/step-10"
  report "the one before is whole" $code
  check "and nothing half written is left behind" test -z "$(find "$disk/run" -name '*.partial')"
  rm "$disk/filler"
  expect "with room again, it goes on" 0 "done" train --resume "$disk/run" --train.steps 20
  umount "$disk" && disk=""
}

test_bad_steps() {
  section "steps that are not finite"
  expect "the run stops after --max_bad_steps" 1 "more than train.max_bad_steps 3" \
    train "${tiny[@]}" --optim.lr 1e30 --optim.clip 0 --max_bad_steps 3 --train.steps 50 --out bad
  check "each one is named" test "$(grep -cE 'step [0-9]+ was skipped: .+ not finite \([0-9]+ in a row' out)" -ge 4
}

test_starts() {
  section "starting from weights"
  expect "--init with another head and image size, with what was adapted" 0 "3 adapted .*pos_embed: 4x4 to 6x6" \
    train "${tiny[@]}" --data "synthetic:size=24,count=128,classes=6" --init run --train.steps 2 --out started
  check "which names the head too" grep -q "head.weight: .*left new" out
  expect "--freeze" 0 "done" train "${tiny[@]}" --init run --freeze 'blocks.0.*,patch_embed.*' --train.steps 4 --out frozen
  check "leaves what it names as it was, and nothing else" tensors \
    "all((a[k] == b[k]) == k.startswith(('blocks.0.', 'patch_embed.')) for k in a if not k.endswith(('router.updates', 'router.mean_c')))" \
    "run/checkpoints/$(cat run/checkpoints/latest)/model.safetensors" "$(checkpoint frozen)/model.safetensors"
}

test_evaluation() {
  section "ermoe-eval"
  expect "--run and --shuffle" 0 "points lost" evaluate --run run --shuffle
  check "shows the routing of each layer" grep -qE "^block +gini +max/mean" out
  run evaluate --run steady --json
  cp out eval.json
  check "--json: the confusion matrix counts every image" \
    json "sum(map(sum, d['confusion'])) == d['images'] == 64 and len(d['classes']) == 4 and len(d['routing']) == 1" eval.json
  evaluate --checkpoint steady/checkpoints/step-90 --json >eval.json 2>err
  grep '"eval"' steady/metrics.jsonl | tail -1 | cat - eval.json >pair.json
  check "averaged weights give what training reported" \
    json "d[1]['averaged_weights'] and all(d[0][k] == d[1][k] for k in ('loss', 'accuracy', 'top5'))" pair.json
  expect "other data" 0 "512 images" evaluate --run run --data "synthetic:size=16,count=2048,classes=4"
  expect "data with more classes than the model knows" 2 "classes" evaluate --run run --data "synthetic:size=16,count=64,classes=5"
  expect "a precision that a CPU lacks" 2 "wants a GPU" evaluate --run run --device cpu --precision bf16
  expect "a folder that is no run" 2 "holds no checkpoints" evaluate --run "$work"
  expect "an unknown flag, with the nearest one" 2 "did you mean --shuffle" evaluate --run run --shufle
}

test_compression() {
  section "ermoe-compress"
  expect "--table compares both methods" 0 "^ +50 % merge .* 1 " compress --run steady --table --replicate 1
  expect "--prune and --replicate make a run" 0 "2 experts a layer and 1 copies" compress --run run --prune 0.5 --replicate 1 --out pruned
  run evaluate --run pruned --json
  check "which is evaluated like any other" json "len(d['routing'][0]['load']) == 3 and d['images'] == 64" out
  expect "and predicts" 0 "^file,rank" predict --run pruned photos/red.ppm
  expect "pruning nothing changes nothing" 0 "^ +0 % " compress --run run --out same
  evaluate --run run --json >a.json && evaluate --run same --json >b.json && cat a.json b.json >pair.json
  check "but the experts, which are plain" json "d[0]['accuracy'] == d[1]['accuracy'] and abs(d[0]['loss'] - d[1]['loss']) < 1e-5" pair.json
  expect "too few experts left" 2 "and a token takes 2" compress --run run --prune 0.75 --out few
  check "leave no folder" test ! -e few
  expect "training does not go on from it" 2 "optimizer.safetensors" train --resume same
}

test_purity() {
  section "gradient purity"
  local some=("${lively[@]}" --moe.router switch_lbl --train.steps 6 --optim.warmup_steps 1)
  expect "measured before some steps" 0 "done" train "${some[@]}" --train.purity_every 3 --out pure
  check "each has a row" json "[r['step'] for r in d if r['split'] == 'purity'] == [4, 6] and all(abs(r['purity_router']) <= 1 for r in d if r['split'] == 'purity')" pure/metrics.jsonl
  run train "${some[@]}" --out impure
  check "and training is the same to the bit" same_files "$(checkpoint pure)" "$(checkpoint impure)"
  expect "without an added loss there is none" 0 "no loss term is added" train "${tiny[@]}" --train.steps 2 --train.purity_every 1 --out none
}

test_prediction() {
  section "ermoe-predict"
  mkdir -p photos/more
  picture photos/red.ppm ff 00 00
  picture photos/more/grey.ppm 80 80 80
  run predict --run run photos
  [ $code -eq 0 ] && [ "$(wc -l <out)" -eq 9 ] && head -1 out | grep -qx "file,rank,class,probability" && grep -q "^photos/red.ppm,1,.* degrees,0" out
  report "CSV, a line a file and class" $?
  run predict --run steady --format json --top 2 photos/red.ppm
  check "JSON" json "len(d) == 1 and len(d[0]['predictions']) == 2 and d[0]['predictions'][0]['class'].endswith('degrees')" out
  head -c 300 photos/red.ppm >photos/cut.ppm
  expect "a broken file is named" 1 "photos/cut.ppm: " predict --run run photos
  check "and costs only itself" test "$(wc -l <out)" -eq 9
  expect "no image at all" 2 "files is required" predict --run run
}

test_inspection() {
  section "ermoe-data inspect"
  expect "a data set" 0 "256 training and 64 evaluation images of 4 classes" inspect "$data" --decode
  expect "a run" 0 "whole one of step" inspect run
  expect "a checkpoint" 0 "checkpoint of step" inspect "$(checkpoint run)"
  expect "weights" 0 "safetensors, [0-9]+ tensors" inspect "$(checkpoint run)/model.safetensors"
  expect "an image" 0 "image, 20 x 16" inspect photos/red.ppm
  expect "a broken image is refused" 2 "photos/cut.ppm: " inspect photos/cut.ppm
  mkdir -p classes/train/a classes/train/b classes/val/a classes/val/b
  cp photos/red.ppm classes/train/a && cp photos/red.ppm classes/val/a
  cp photos/more/grey.ppm classes/train/b && cp photos/more/grey.ppm classes/val/b
  expect "class folders" 0 "2 training and 2 evaluation images of 2 classes" inspect classes
  cp photos/cut.ppm classes/train/b
  expect "a broken image among them" 2 "1 of 5 images looked at are broken" inspect classes --decode
  expect "nothing" 2 "nowhere" inspect nowhere
}

# hostile FILE EXPECTED: exit code 0 or 2, as the manifest says, within two seconds of processor time.
hostile() {
  (ulimit -t 2; exec "$bin/ermoe-data" inspect "$1" --threads 1) >out 2>err </dev/null
  case "$2:$?" in
    accept:0 | reject:2 | any:0 | any:2) return 0 ;;
    *) echo "        $1 should be: $2" && return 1 ;;
  esac
}

test_benchmarks() {
  section "benchmarks"
  expect "one op" 0 "^gelu .* GB/s" "$bin/ermoe-bench" op gelu --seconds 0
  expect "the same as JSON" 0 '"op": "gelu"' "$bin/ermoe-bench" op gelu --seconds 0 --json
  expect "an op at another workload's shapes" 0 "^project_off .*(768, 672)" "$bin/ermoe-bench" op project_off --list --workload b16 --batch 1
  expect "a step" 0 '"useful_share"' "$bin/ermoe-bench" step --router dense --batch 1 --steps 1 --warmup 0 --json
  expect "a layer with experts" 0 '"most_rows": 130' "$bin/ermoe-bench" layer --workload c10 --batch 1 --steps 1 --warmup 0 --json
  expect "a layer over ranks that are not there" 2 "1 rank cannot be parted" "$bin/ermoe-bench" layer --expert 2
  expect "an unknown op" 2 "op nosuch is not known" "$bin/ermoe-bench" op nosuch
  expect "an unknown workload" 2 "choose from c10, s16, b16, ba" "$bin/ermoe-bench" step --workload c100
  expect "photographs are made" 0 "^24 photographs of 3 classes" "$bin/ermoe-data" photos made_up --count 24 --classes 3 --width 90 --height 60
  expect "a folder that exists is not written into" 2 "made_up: exists already" "$bin/ermoe-data" photos made_up
  expect "images a second" 0 "all of it, as training does +[0-9]" \
    "$bin/ermoe-data" bench made_up --images 24 --size 32 --batch 8 --device cpu
  expect "random parts of them train" 0 "done .*test accuracy" train "${tiny[@]}" --data made_up --model.image_size 32 \
    --augment.resized_crop --train.batch 8 --train.steps 4 --out parts
  expect "factors stay orthonormal" 0 "within 5e-06" "$bin/ermoe-bench" orthogonality --width 32 --steps 200 --method all
}

test_hostile_files() {
  section "hostile files"
  local archive="${ERMOE_TEST_DATA:-}/corrupt_inputs.tar" path expected wrong=0 count=0
  if [ ! -e "$archive" ]; then
    skip "ERMOE_TEST_DATA is not set or holds no corrupt_inputs.tar"
    return
  fi
  mkdir hostile && tar xf "$archive" -C hostile
  while IFS=$'\t' read -r path _ _ _ expected _; do
    case "$path" in
      *.tif | *.tiff) expected=reject ;; # not read here
      nifti/real/5D_* | nifti/real/nibabel_example* | nifti/real/nibabel_functional*) expected=reject ;; # series of volumes
      png/* | jpeg/* | pillow/* | safetensors/* | nifti/*) ;;
      *) continue ;;
    esac
    case "$expected" in accept | reject | any) ;; *) continue ;; esac
    count=$((count + 1))
    hostile "hostile/$path" "$expected" || wrong=$((wrong + 1))
  done <hostile/manifest.tsv
  [ $wrong -eq 0 ] && [ $count -gt 400 ]
  report "$count files are taken or refused as they should be" $?
}

test_training
test_refusals
test_interruptions
test_kills
test_damage
test_full_disk
test_bad_steps
test_starts
test_upcycling
test_python
test_evaluation
test_prediction
test_compression
test_purity
test_inspection
test_captions
test_retrieval
test_retrieval_kills
test_retrieval_refusals
test_benchmarks
test_study
test_volumes
test_looks
test_study_inspection
test_brain_tools
test_report_pages
test_hostile_files
echo
echo "$passed passed, $failed failed ($((SECONDS - started)) s)"
[ $failed -eq 0 ]
