#!/usr/bin/env bash
# Everything about the GPU in one go: builds, runs the tests that need one, then times whole training steps of this engine
# and of PyTorch one after the other, and prints a table. PyTorch's side is a script that takes --model --moe --ortho
# --batch --steps --warmup --compile and prints one JSON line with "img_s".
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tools/bench_gpu.sh [PEER.py]
  PEER.py  PyTorch's side; without it only this engine is timed
variables
  BUILD      folder of the build (build/cuda); made where it is missing
  WORKLOADS  "s16 b16 c10"      STEPS 20   WARMUP 5   ROUNDS 2
  TESTS 1    0: do not run the tests
  PEER_MOE   "ermoe dense"      what PyTorch is timed with
  PYTHON     python3            the interpreter that has PyTorch
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peer=${1:-}
build=${BUILD:-$root/build/cuda}
python=${PYTHON:-python3}
steps=${STEPS:-20} warmup=${WARMUP:-5} rounds=${ROUNDS:-2}
declare -A batch=([s16]=256 [b16]=128 [c10]=1024)
[[ -z $peer || -f $peer ]] || { echo "bench_gpu.sh: $peer is not there" >&2 && exit 2; }

if [[ ! -x $build/tools/ermoe-bench ]]; then
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DERMOE_CUDA=ON >/dev/null
  cmake --build "$build" -j "$(nproc)"
fi
if [[ ${TESTS:-1} == 1 ]]; then
  for suite in cuda ops models tools; do
    "$build/tests/ermoe_tests_$suite" --gtest_brief=1 --gtest_filter='*Gpu*:*_gpu*:*OnGpu*:*Cuda*:*cuda*'
  done
fi

# Field $1 of the JSON on stdin; "results.0.x" walks into lists.
field() { "$python" -c 'import json, sys
value = json.loads(sys.stdin.read().strip().splitlines()[-1])
for key in sys.argv[1].split("."): value = value[int(key) if key.isdigit() else key]
print(value)' "$1"; }

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
printf '%-9s %-28s %10s\n' workload what "images/s"
row() { printf '%-9s %-28s %10.0f\n' "$1" "$2" "$3"; }
for ((round = 1; round <= rounds; ++round)); do
  for w in ${WORKLOADS:-s16 b16 c10}; do
    common=(--batch "${batch[$w]}" --steps "$steps" --warmup "$warmup")
    for router in dense ermoe; do
      row "$w" "this engine, $router" "$("$build/tools/ermoe-bench" step --device cuda --workload "$w" --router "$router" "${common[@]}" --json | tr -d '\n' | field results.0.images_per_second)"
    done
    [[ -n $peer ]] || continue
    for moe in ${PEER_MOE:-ermoe dense}; do
      row "$w" "PyTorch compiled, $moe" "$("$python" "$peer" --model "$w" --moe "$moe" --ortho retract --compile "${common[@]}" | field img_s)"
    done
  done
done
