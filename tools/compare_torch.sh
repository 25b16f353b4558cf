#!/usr/bin/env bash
# Images a second of this engine against PyTorch on the same CPU, one after the other in the same run, with the same
# OpenBLAS kernels and threads. A dense step against a dense step; an ERMoE step with its orthogonal step against PyTorch's
# ERMoE without one. PyTorch's side is a script that takes --device --model --batch --moe --ortho --steps --warmup and
# prints one JSON line with "img_s". Exit code 0 where both ratios reach the target, 1 where one does not.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tools/compare_torch.sh [PEER.py]
  PEER.py  PyTorch's side; or the variable ERMOE_PEER
variables
  ERMOE_BENCH   the program (build/cpu/tools/ermoe-bench)
  PYTHON        the interpreter that has PyTorch (/usr/bin/python3)
  ROUNDS 2  BATCH 16  STEPS 5  WARMUP 2  MODEL c10  TARGET 1.5
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peer=${1:-${ERMOE_PEER:-}}
bench=${ERMOE_BENCH:-$root/build/cpu/tools/ermoe-bench}
python=${PYTHON:-/usr/bin/python3}
rounds=${ROUNDS:-2} batch=${BATCH:-16} steps=${STEPS:-5} warmup=${WARMUP:-2} model=${MODEL:-c10} target=${TARGET:-1.5}

[[ -n $peer && -f $peer ]] || { echo "compare_torch.sh: PyTorch's side is missing: give its path or set ERMOE_PEER" >&2 && usage >&2 && exit 2; }
[[ -x $bench ]] || { echo "compare_torch.sh: $bench is not there: build ermoe-bench first or set ERMOE_BENCH" >&2 && exit 2; }
"$python" -c 'import torch' 2>/dev/null || { echo "compare_torch.sh: $python has no PyTorch: set PYTHON" >&2 && exit 2; }

# Field $1 of the JSON on stdin; "results.0.x" walks into lists.
field() { "$python" -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[int(key) if key.isdigit() else key]
print(value)' "$1"; }

threads=$(nproc)
export OMP_NUM_THREADS=$threads
if [[ -z ${OPENBLAS_CORETYPE:-} ]]; then # what the BLAS would choose by itself, now said aloud for both
  OPENBLAS_CORETYPE=$("$bench" op select --seconds 0 --json | field blas)
fi
export OPENBLAS_CORETYPE
echo "$model, batch $batch, float32, $threads threads, OPENBLAS_CORETYPE=$OPENBLAS_CORETYPE, $rounds rounds of $steps steps after $warmup"
echo "PyTorch $("$python" -c 'import torch; print(torch.__version__)'), $peer; load average $(cut -d' ' -f1 /proc/loadavg)"

ours() { "$bench" step --workload "$model" --batch "$batch" --steps "$steps" --warmup "$warmup" --threads "$threads" --json "$@" | field results.0.images_per_second; }
theirs() { "$python" "$peer" --device cpu --model "$model" --batch "$batch" --steps "$steps" --warmup "$warmup" "$@" | field img_s; }

declare -A rates=([dense/ermoe]="" [dense/torch]="" [experts/ermoe]="" [experts/torch]="")
measure() { # key, command
  local rate
  rate=$("${@:2}")
  rates[$1]+=" $rate"
  printf '  round %s  %-14s %8.2f images/s\n' "$round" "$1" "$rate"
}
for ((round = 1; round <= rounds; ++round)); do
  measure dense/torch theirs --moe dense
  measure dense/ermoe ours --router dense
  measure experts/torch theirs --moe ermoe --ortho none
  measure experts/ermoe ours --router ermoe --orthogonality newton_schulz
done

"$python" - "$target" "${rates[dense/torch]}" "${rates[dense/ermoe]}" "${rates[experts/torch]}" "${rates[experts/ermoe]}" <<'PYTHON'
import statistics, sys
target = float(sys.argv[1])
dense_torch, dense_ours, experts_torch, experts_ours = ([float(x) for x in text.split()] for text in sys.argv[2:])
print(f"\n{'step':<46} {'PyTorch':>9} {'ERMoE':>9} {'ratio':>7}   rounds")
low = False
for name, torch, ours in (("dense", dense_torch, dense_ours), ("ERMoE (ours with, theirs without orthogonality)", experts_torch, experts_ours)):
    ratio = statistics.median(ours) / statistics.median(torch)
    each = " ".join(f"{a / b:.2f}" for a, b in zip(ours, torch))
    low |= ratio < target
    print(f"{name:<46} {statistics.median(torch):9.2f} {statistics.median(ours):9.2f} {ratio:7.2f}   {each}")
print(f"images/s, medians of rounds; target {target}: {'missed' if low else 'reached'}")
sys.exit(1 if low else 0)
PYTHON
