#!/usr/bin/env bash
# Everything about the GPU in one go: builds, runs the tests that need one, times single ops, then whole training steps of this
# engine and of PyTorch one after the other, and prints one table of them in Markdown. PyTorch's side is a script that takes
# --model --moe --ortho --batch --steps --warmup --compile and prints one JSON line with "img_s" and "peak_GB".
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tools/bench_gpu.sh [PART…] [--peer PEER.py] [--filter TESTS] [--out FOLDER]
  PART        tests      the GPU's tests, on the GPU's own kernels and with those of Ampere
              sanitizer  the same and whole steps under compute-sanitizer (tools/sanitize_gpu.sh); minutes, so only when named
              op         single ops at the shapes of each workload
              step       whole steps, the table, and in another one where an ERMoE step's time goes
              all but the sanitizer where none is named
  --peer      PyTorch's side; without it only this engine is timed
  --filter    which tests, as --gtest_filter has it (those of the GPU)
  --out       keeps each step's JSON and each part's text there
variables
  BUILD      folder of the build (build/cuda); made where it is missing, else brought up to date
  WORKLOADS  "s16 b16 c10 ba"   STEPS 20   WARMUP 5   ROUNDS 2: the table gives the median over the rounds
  ORTHO      "retract"          how PyTorch's ERMoE keeps factors orthonormal
  PYTHON     python3            the interpreter that has PyTorch
  SANITIZE_BUILD  folder of the sanitizer's own build (build/sanitize)
exit code 1 where a test failed or the sanitizer reported something
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${BUILD:-$root/build/cuda}
python=${PYTHON:-python3}
steps=${STEPS:-20} warmup=${WARMUP:-5} rounds=${ROUNDS:-2}
read -r -a workloads <<<"${WORKLOADS:-s16 b16 c10 ba}"
declare -A batch=([s16]=256 [b16]=128 [c10]=1024 [ba]=32)
# What ERMoE is to be, in images/s, beside PyTorch's fastest honest ERMoE of the same call.
declare -A target=([s16]=1.5 [b16]=1.5 [c10]=1.45 [ba]=1.7)
parts=() peer="" filter='*Gpu*:*gpu*:*Cuda*:*cuda*:Devices.*:FindGpus.*' sanitized="" out=""

die() { echo "bench_gpu.sh: $*" >&2 && exit 2; }
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    tests | sanitizer | op | step) parts+=("$1") ;;
    --peer | --filter | --out)
      [[ $# -gt 1 ]] || die "$1 wants a value"
      case $1 in --peer) peer=$2 ;; --filter) filter=$2 sanitized=$2 ;; --out) out=$2 ;; esac
      shift ;;
    *) die "$1 is neither a part nor an option; --help lists them" ;;
  esac
  shift
done
[[ ${#parts[@]} -gt 0 ]] || parts=(tests op step)
[[ -z $peer || -f $peer ]] || die "$peer is not there"
for w in "${workloads[@]}"; do [[ -n ${batch[$w]:-} ]] || die "workload $w is not known: ${!batch[*]}"; done
if [[ -n $out ]]; then mkdir -p "$out"; else out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT; fi
export OMP_WAIT_POLICY=passive
failed=0

suites=(cuda core ops models tools)

build() {
  local targets=(ermoe-bench)
  [[ " ${parts[*]} " != *" tests "* ]] || targets+=("${suites[@]/#/ermoe_tests_}")
  [[ -f $build/build.ninja ]] || cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DERMOE_CUDA=ON >/dev/null
  cmake --build "$build" -j "$(nproc)" --target "${targets[@]}"
}

run_tests() {
  local kernels suite
  for kernels in native ampere; do
    for suite in "${suites[@]}"; do
      [[ -x $build/tests/ermoe_tests_$suite ]] || die "$build/tests/ermoe_tests_$suite is not built"
      echo "== tests of $suite, $kernels kernels"
      ERMOE_GPU_KERNELS=$kernels "$build/tests/ermoe_tests_$suite" --gtest_brief=1 --gtest_filter="$filter" | tee "$out/tests-$suite-$kernels.txt" |
        tail -n 30 || failed=1
    done
  done
}

run_sanitizer() {
  echo "== compute-sanitizer"
  BUILD=${SANITIZE_BUILD:-$root/build/sanitize} FILTER=$sanitized "$root/tools/sanitize_gpu.sh" || failed=1
}

run_ops() {
  local w
  for w in "${workloads[@]}"; do
    echo "== ops at the shapes of $w, batch ${batch[$w]}"
    "$build/tools/ermoe-bench" op --device cuda --workload "$w" --batch "${batch[$w]}" --seconds 0 | tee "$out/op-$w.txt"
  done
}

# Field $1 of the last JSON object in file $2; "results.0.x" walks into lists.
field() {
  "$python" - "$1" "$2" <<'PY'
import json, sys
text = open(sys.argv[2]).read()
value = json.loads(text[text.index("{"):])
for key in sys.argv[1].split("."):
    value = value[int(key) if key.isdigit() else key]
print(value)
PY
}
# Numbers on stdin: their median, as printf's format $1 has it.
median() { sort -g | awk -v f="$1" '{x[NR] = $1} END {if (NR) printf f, NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2; else printf "-"}'; }
# Median of field $1 over the rounds' files $2-ROUND.json.
over_rounds() {
  local r
  for ((r = 1; r <= rounds; ++r)); do if [[ -s $2-$r.json ]]; then field "$1" "$2-$r.json"; fi; done | median "$3"
}

time_step() {  # workload router round
  "$build/tools/ermoe-bench" step --device cuda --workload "$1" --router "$2" --batch "${batch[$1]}" --steps "$steps" --warmup "$warmup" \
    --json >"$out/$1-$2-$3.json" || { echo "bench_gpu.sh: $1 $2 failed" >&2 && failed=1; }
}
time_peer() {  # workload round
  "$python" "$peer" --model "$1" --moe ermoe --ortho "${ORTHO:-retract}" --compile --batch "${batch[$1]}" --steps "$steps" \
    --warmup "$warmup" | tail -n 1 >"$out/$1-peer-$2.json" || { echo "bench_gpu.sh: the peer's $1 failed" >&2 && failed=1; }
}

table() {
  local w e d p ratio gib='%.1f'
  echo
  echo "| workload | dense, images/s | ERMoE | PyTorch's ERMoE | ratio | peak memory, GiB | PyTorch's | target |"
  echo "|---|---|---|---|---|---|---|---|"
  for w in "${workloads[@]}"; do
    d=$(over_rounds results.0.images_per_second "$out/$w-dense" '%.0f')
    e=$(over_rounds results.0.images_per_second "$out/$w-ermoe" '%.0f')
    p=$(over_rounds img_s "$out/$w-peer" '%.0f')
    ratio=$(awk -v e="$e" -v p="$p" 'BEGIN {if (e > 0 && p > 0) printf "%.2f", e / p; else printf "-"}')
    echo "| $w, batch ${batch[$w]} | $d | $e | $p | $ratio |" \
      "$(over_rounds results.0.peak_bytes "$out/$w-ermoe" '%.0f' | awk -v f="$gib" '{if ($1 > 0) printf f, $1 / 2 ^ 30; else printf "-"}') |" \
      "$(over_rounds peak_GB "$out/$w-peer" "$gib") | ${target[$w]} |"
  done
}

# Where an ERMoE step's time goes: its kernels by family in per cent of the step, from the last round.
shares() {
  echo
  "$python" - "$out" "$rounds" "${workloads[@]}" <<'PY'
import json, os, sys
out, last, names = sys.argv[1], sys.argv[2], sys.argv[3:]
rows = {}
for name in names:
    path = f"{out}/{name}-ermoe-{last}.json"
    text = open(path).read() if os.path.exists(path) else ""
    if "{" not in text:
        continue
    breakdown = json.loads(text[text.index("{"):])["results"][0]["breakdown"]
    rows[name] = breakdown.get("families_percent", {})
    if "fault" in breakdown:
        print(f"{name}: no breakdown, {breakdown['fault']}")
families = list(dict.fromkeys(f for row in rows.values() for f in row))
print("| share of the ERMoE step, % | " + " | ".join(f.replace("_", " ") for f in families) + " |")
print("|---|" + "---|" * len(families))
for name, row in rows.items():
    print(f"| {name} | " + " | ".join(f"{row.get(f, 0):.1f}" for f in families) + " |")
PY
}

run_steps() {
  local r w
  rm -f "$out"/*-{dense,ermoe,peer}-*.json
  for ((r = 1; r <= rounds; ++r)); do
    for w in "${workloads[@]}"; do
      echo "== $w, round $r of $rounds" >&2
      time_step "$w" dense "$r"
      time_step "$w" ermoe "$r"
      [[ -z $peer ]] || time_peer "$w" "$r"
    done
  done
  table | tee "$out/table.md"
  shares | tee "$out/shares.md"
}

build
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
for part in "${parts[@]}"; do
  case $part in tests) run_tests ;; sanitizer) run_sanitizer ;; op) run_ops ;; step) run_steps ;; esac
done
exit $failed
