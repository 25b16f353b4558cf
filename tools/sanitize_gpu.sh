#!/usr/bin/env bash
# The GPU's tests and whole training steps under compute-sanitizer, many processes beside each other: bad addresses
# (memcheck), bytes read that nobody wrote (initcheck), races in shared memory (racecheck), barriers that not all
# threads reach (synccheck). Ends with a table; exit code 1 where a tool reported something or a test failed.
#
# Memory is taken exact: every tensor a block of its own, so that a byte too far is seen; steps then run op by op. `replays` are
# memcheck on steps as users run them, recorded and replayed on cached memory. The other tools take cublasLt's kernels badly: initcheck does not see all that they write,
# and under racecheck they end in an exception; so there every product is made by a plain kernel of the engine's own.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: tools/sanitize_gpu.sh
variables
  BUILD   folder of the build (build/sanitize); made where it is missing, with the kernels' line numbers
  OUT     where logs go, one a process (build/sanitize/logs)
  TOOLS   "memcheck steps replays racecheck initcheck synccheck": what runs, in this order
  FILTER  "*Gpu*" which tests of single ops, as --gtest_filter has it
  SHARDS  40      processes that the tests are dealt to
  JOBS    14      of them at a time
  LIMIT   3600    seconds for everything behind the build; what has not begun by then is counted as not run.
                  On an H100 memcheck and steps take 90 s together; racecheck is slow: there tests with lists of shapes
                  keep to few and small ones (ERMOE_TEST_SIZES=small)
  CMAKE   ""      more arguments of cmake
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
build=${BUILD:-build/sanitize}
export OUT=${OUT:-$build/logs}
cores=$(nproc)
export ERMOE_GPU_MEMORY=exact OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OMP_WAIT_POLICY=passive
command -v compute-sanitizer >/dev/null || { echo "sanitize_gpu.sh: compute-sanitizer, a part of the CUDA toolkit, is not here" >&2; exit 2; }

# shellcheck disable=SC2086
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DERMOE_CUDA=ON -DCMAKE_CUDA_FLAGS=-lineinfo ${CMAKE:-} >/dev/null || exit 2
cmake --build "$build" -j "$cores" --target ermoe_tests_ops ermoe_tests_cuda ermoe_tests_models ermoe_tests_tools ermoe-bench >"$build/build.log" ||
  { tail -40 "$build/build.log"; exit 2; }
mkdir -p "$OUT"
END=$(($(date +%s) + ${LIMIT:-3600}))
export END

# run_one NAME TOOL COMMAND…: a log that ends with the exit code and the seconds, or none where time is over.
run_one() {
  local name=$1 tool=$2 begin left code
  shift 2
  begin=$(date +%s)
  left=$((END - begin))
  [[ $left -gt 3 ]] || exit 0
  local options=(--tool "$tool" --error-exitcode 9 --print-limit 20)
  [[ $tool == memcheck ]] || ENVIRONMENT+=(ERMOE_GPU_PRODUCTS=plain)
  case $tool in
    memcheck) options+=(--padding 512) ;;
    racecheck)
      options+=(--racecheck-report all --kernel-name kns=ermoe)
      ENVIRONMENT+=(ERMOE_TEST_SIZES=small)
      ;;
    synccheck) options+=(--kernel-name kns=ermoe) ;;
  esac
  # The stand-in for large products is checked on small ones; on large ones it would take hours.
  # Nor does racecheck follow barriers of the copy engine: where it fills a slot of product_kernel anew, a group seems to read what another
  # wrote there a turn before (stiefel_products_wgmma.cu). One wait there was in fact missing once, and only ermoe_soak showed it.
  if [[ $tool == racecheck ]]; then
    options+=(--kernel-name-exclude kns=product_kernel)
    [[ $name == racecheck-products ]] || options+=(--kernel-name-exclude kns=plain_gemm)
  fi
  timeout -k 2 "$left" env "${ENVIRONMENT[@]}" compute-sanitizer "${options[@]}" "$@" >"$OUT/$name.log" 2>&1
  code=$?
  echo "exit $code after $(($(date +%s) - begin)) s" >>"$OUT/$name.log"
}

# run_line "NAME TOOL VARIABLE=… -- COMMAND…"
run_line() {
  local words name tool
  read -r -a words <<<"$1"
  name=${words[0]} tool=${words[1]}
  ENVIRONMENT=()
  words=("${words[@]:2}")
  while [[ ${words[0]} != -- ]]; do
    ENVIRONMENT+=("${words[0]}")
    words=("${words[@]:1}")
  done
  run_one "$name" "$tool" "${words[@]:1}"
}
export -f run_one run_line

tests=$build/tests
list_tests() {  # of the tool $1
  local s shards=${SHARDS:-40}
  for ((s = 0; s < shards; ++s)); do
    echo "$1-ops-$s $1 GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$s -- $tests/ermoe_tests_ops --gtest_filter=${FILTER:-*Gpu*}"
  done
  for ((s = 0; s < 5; ++s)); do
    echo "$1-cuda-$s $1 GTEST_TOTAL_SHARDS=5 GTEST_SHARD_INDEX=$s -- $tests/ermoe_tests_cuda --gtest_filter=*Gpu*-*Speed*"
  done
  if [[ $1 == racecheck ]]; then
    echo "$1-products $1 -- $tests/ermoe_tests_ops --gtest_filter=*/MatmulOp.*Gpu*:*/LinearOp.*Gpu*-*large*"
  else
    for ((s = 0; s < 6; ++s)); do
      echo "$1-golden-$s $1 GTEST_TOTAL_SHARDS=6 GTEST_SHARD_INDEX=$s -- $tests/ermoe_tests_tools --gtest_filter=*Golden*gpu*"
    done
  fi
  # The products that older GPUs run.
  echo "$1-ampere-ops $1 ERMOE_GPU_KERNELS=ampere -- $tests/ermoe_tests_ops --gtest_filter=*Grouped*Gpu*"
  echo "$1-ampere-cuda $1 ERMOE_GPU_KERNELS=ampere -- $tests/ermoe_tests_cuda --gtest_filter=GroupedLinearOnGpu*"
}
list_steps() {
  local tool kernels
  for tool in memcheck initcheck; do
    # Initcheck does not see what Hopper's copy engine writes.
    kernels=ERMOE_GPU_KERNELS=$([[ $tool == initcheck ]] && echo ampere || echo native)
    for step in "c10 --batch 8" "s16 --batch 4"; do
      for precision in bf16 f32; do
        echo "$tool-step-${step%% *}-$precision $tool $kernels -- $build/tools/ermoe-bench step --device cuda --precision $precision --steps-only --steps 1 --warmup 0 --workload $step"
      done
    done
  done
}

list_replays() {
  local s
  for ((s = 0; s < 6; ++s)); do
    echo "replay-tests-$s memcheck ERMOE_GPU_MEMORY=cached GTEST_TOTAL_SHARDS=6 GTEST_SHARD_INDEX=$s -- $tests/ermoe_tests_models --gtest_filter=*RecordedOnGpu*"
  done
  for step in "c10 --batch 8" "s16 --batch 4"; do
    echo "replay-step-${step%% *} memcheck ERMOE_GPU_MEMORY=cached -- $build/tools/ermoe-bench step --device cuda --steps-only --steps 3 --warmup 2 --workload $step"
  done
}

for tool in ${TOOLS:-memcheck steps replays racecheck initcheck synccheck}; do
  case $tool in
    steps) list_steps ;;
    replays) list_replays ;;
    *) list_tests "$tool" ;;
  esac
done >"$OUT/jobs.txt"
xargs -d '\n' -P "${JOBS:-14}" -I{} bash -c 'run_line "$1"' _ {} <"$OUT/jobs.txt"

# What ran, what was found.
bad=0
: >"$OUT/unfinished.txt"
printf '%-10s %9s %9s %9s %10s %9s %9s\n' tool processes finished reporting "not begun" "tests ok" "failed"
while read -r tool; do
  all=0 done=0 reporting=0 missing=0 ok=0 failed=0
  while read -r name _; do
    ((++all))
    log=$OUT/$name.log
    [[ -f $log ]] || { ((++missing)); continue; }
    ok=$((ok + $(grep -c '^\[       OK \]' "$log")))
    failed=$((failed + $(grep -c '^\[  FAILED  \].*ms)$' "$log")))
    grep -Eq '^========= (ERROR SUMMARY: [1-9]|RACECHECK SUMMARY: [1-9]|Error|Internal Sanitizer Error)' "$log" && ((++reporting))
    if grep -Eq '^exit (0|1|9) ' "$log"; then
      ((++done))
    else
      echo "$name: $(tail -n 1 "$log"), in $(grep '^\[ RUN ' "$log" | tail -n 1 | cut -c14-)" >>"$OUT/unfinished.txt"
    fi
  done < <(awk -v tool="$tool" '$2 == tool' "$OUT/jobs.txt")
  printf '%-10s %9d %9d %9d %10d %9d %9d\n' "$tool" "$all" "$done" "$reporting" "$missing" "$ok" "$failed"
  [[ $reporting -eq 0 && $failed -eq 0 && $done -eq $all ]] || bad=1
done < <(awk '!seen[$2]++ {print $2}' "$OUT/jobs.txt")
[[ ! -s $OUT/unfinished.txt ]] || { echo "not finished:"; cat "$OUT/unfinished.txt"; }
exit $bad
