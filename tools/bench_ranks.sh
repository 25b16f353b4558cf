#!/usr/bin/env bash
# What several GPUs do together, in one table: whole steps on one GPU and on all, one layer with experts on each rank and spread, and an
# all-to-all; beside PyTorch's layer (tools/torch_layer.py), timed in the same run.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'TEXT'
usage: tools/bench_ranks.sh [RANKS]     RANKS: 2, a GPU each
variables
  BUILD   folder of the build (build/cuda), which must be made
  STEPS   40 of each measurement, after 5
  PYTHON  python3, the interpreter that has PyTorch; empty: this engine alone
TEXT
  exit 0
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bench=${BUILD:-$root/build/cuda}/tools/ermoe-bench ranks=${1:-2} steps=${STEPS:-40} python=${PYTHON-python3}
[[ -x $bench ]] || { echo "bench_ranks.sh: $bench is not built" >&2 && exit 2; }
export OMP_WAIT_POLICY=passive
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # as root Open MPI asks twice
out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT

all() { mpirun --oversubscribe --bind-to none -n "$ranks" "$@" 2>"$out/err" || { cat "$out/err" >&2 && exit 1; }; }
# value FILE KEY: a number of the last JSON object that has it.
value() { grep -oE "\"$2\": *[0-9.e+-]+" "$1" | tail -n 1 | sed 's/.*: *//'; }
per() { awk -v a="$1" -v b="$2" -v f="$3" 'BEGIN { printf f, a / b }'; }

echo "| steps, images/s | one GPU | $ranks GPUs | of $ranks times one | sums of gradients beside other work | optimizer's bytes a rank |"
echo "|---|---|---|---|---|---|"
for work in s16:256 b16:128; do
  name=${work%:*} batch=${work#*:}
  CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0} "$bench" step --workload "$name" --batch "$batch" --steps "$steps" --steps-only --json >"$out/one"
  all "$bench" step --workload "$name" --batch "$batch" --steps "$steps" --json >"$out/all"
  one=$(value "$out/one" images_per_second) together=$(value "$out/all" images_per_second)
  hidden=$(tr -d '\n' <"$out/all" | grep -oE '"name": *"[^"]*ReduceScatter[^}]*' | head -n 1)
  share=$(sed -E 's/.*"ms": *([0-9.e-]+), *"hidden_ms": *([0-9.e-]+).*/\2 \1/' <<<"$hidden" | awk 'NF == 2 { printf "%.1f %% of %.2f ms", 100 * $1 / $2, $2 }')
  echo "| $name, batch $batch a GPU | $(per "$one" 1 %.0f) | $(per "$together" 1 %.0f) | $(per "$together" "$(per "$one" 100 %f)" %.1f | awk -v n="$ranks" '{ printf "%.1f %%", $1 / n }') | ${share:-not measured} | $(per "$(value "$out/all" optimizer_bytes)" "$(per "$(value "$out/one" optimizer_bytes)" 100 %f)" "%.1f %%") of one rank's |"
done
echo
echo "| one layer, forward and backward, ms | this engine | PyTorch |"
echo "|---|---|---|"
for work in s16:384:256 b16:768:128; do
  IFS=: read -r name width batch <<<"$work"
  [[ -z $python ]] || all "$python" "$root/tools/torch_layer.py" --width "$width" --batch "$batch" --steps "$steps" >"$out/torch"
  for expert in 1 "$ranks"; do
    all "$bench" layer --workload "$name" --batch "$batch" --steps "$steps" --expert "$expert" --json >"$out/layer"
    how=$([[ $expert == 1 ]] && echo "experts on each rank" || echo "experts spread")
    peer=$([[ -z $python ]] || grep "\"$how\"" "$out/torch" | value /dev/stdin ms)
    echo "| D $width, batch $batch a GPU, $how | $(per "$(value "$out/layer" median_ms)" 1 %.2f) | ${peer:+$(per "$peer" 1 %.2f)} |"
  done
done
echo
all "$bench" comm all_to_all --from 67108864 --to 67108864 --json >"$out/comm"
echo "all-to-all of 64 MiB: $(per "$(value "$out/comm" bus_gbytes_per_second)" 1 %.0f) GB/s a rank on the bus${python:+; PyTorch $(per "$(value "$out/torch" bus_gb_s)" 1 %.0f)}"
