#!/usr/bin/env bash
# Images a second of this engine's training steps of a dual encoder (ViT-B/16 with experts, 12 text blocks) beside PyTorch's of the same
# shape, round about in one run on one machine. PyTorch's side (tools/torch_clip_peer.py) compiles once and waits between its rounds.
# Prints each round, then medians, their ratio and what it ran on. Exit code 0 where the ratio reaches the target, 1 where it does not.
set -euo pipefail
trap '' PIPE # who is asked may be gone: that is an error of ours to tell, not a death

usage() {
  cat <<'TEXT'
usage: tools/compare_clip.sh [--small] [--kernels N]
  --small      tiny towers on the CPU, to see that it runs
  --kernels N  at the end say where a step of ours spent its time, with its N longest kernels
variables
  ERMOE_BENCH  the program (build/cuda/tools/ermoe-bench; with --small build/cpu/…)
  PYTHON       python3: the interpreter that has PyTorch (with --small /usr/bin/python3)
  PEER         tools/torch_clip_peer.py
  KINDS        "ermoe", or "dense", or both
  ROUNDS 3  BATCH 256  STEPS 20  WARMUP 8  TARGET 1.5
  MODE         default: of torch.compile (reduce-overhead, max-autotune)
  LIMIT        540: seconds for all; rounds that would not fit are left out
TEXT
}
die() { echo "compare_clip.sh: $*" >&2 && exit 2; }

small="" kernels=0
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --small) small=1 ;;
    --kernels) [[ $# -gt 1 ]] || die "--kernels wants a number" && kernels=$2 && shift ;;
    *) die "$1 is no option; --help lists them" ;;
  esac
  shift
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peer=${PEER:-$root/tools/torch_clip_peer.py}
read -r -a kinds <<<"${KINDS:-ermoe}"
rounds=${ROUNDS:-3} limit=${LIMIT:-540} machine=$(nproc)" cores"
if [[ -n $small ]]; then
  bench=${ERMOE_BENCH:-$root/build/cpu/tools/ermoe-bench} python=${PYTHON:-/usr/bin/python3}
  workload=clip_tiny device=cpu batch=${BATCH:-16} steps=${STEPS:-5} warmup=${WARMUP:-2} target=${TARGET:-0} peer_flags=(--small)
else
  bench=${ERMOE_BENCH:-$root/build/cuda/tools/ermoe-bench} python=${PYTHON:-python3}
  workload=clip device=cuda batch=${BATCH:-256} steps=${STEPS:-20} warmup=${WARMUP:-8} target=${TARGET:-1.5} peer_flags=()
  gpu=$(nvidia-smi -i 0 --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) || die "nvidia-smi finds no GPU; --small runs on the CPU"
  machine="$gpu driver, $machine"
fi
[[ -x $bench ]] || die "$bench is not there: build ermoe-bench first or set ERMOE_BENCH"
[[ -f $peer ]] || die "$peer is not there: set PEER"
"$python" -c 'import torch' 2>/dev/null || die "$python has no PyTorch: set PYTHON"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
left() { echo $((limit - SECONDS > 1 ? limit - SECONDS : 1)); }
# Field $1 of the JSON on stdin; "results.0.x" walks into lists.
field() { "$python" -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[int(key) if key.isdigit() else key]
print(value)' "$1"; }

ours() { # kind, further flags
  timeout "$(left)" "$bench" step --device "$device" --workload "$workload" --router "$1" --orthogonality newton_schulz --batch "$batch" \
    --steps "$steps" --warmup "$warmup" "${@:2}"
}

# The peer's next answer into `answer`: "ready" or JSON; libraries may say other things.
hear() {
  while read -r -t "$(left)" answer <&"$from_peer"; do
    [[ $answer != ready && $answer != \{* ]] || return 0
  done
  sed 's/^/  /' "$scratch/peer.log" | tail -n 20 >&2
  die "PyTorch's side said nothing: it failed, or $limit s (LIMIT) were not enough"
}

ask_peer() { # kind
  echo go >&"$to_peer" || die "PyTorch's side has ended"
  hear
  echo "$answer" >>"$scratch/$1.torch"
}

# Who is second finds a warmer machine: they take turns.
one_round() { # kind, round
  local theirs_rate ours_rate
  if (($2 % 2 == 1)); then ask_peer "$1"; fi
  ours "$1" --json --steps-only >"$scratch/ours.json" || die "$bench failed, or $limit s (LIMIT) were not enough"
  "$python" -c 'import json, sys; print(json.dumps(json.load(sys.stdin)))' <"$scratch/ours.json" >>"$scratch/$1.ours"
  if (($2 % 2 == 0)); then ask_peer "$1"; fi
  theirs_rate=$(field img_s <<<"$answer") ours_rate=$(field results.0.images_per_second <"$scratch/ours.json")
  printf '  round %s  %-6s PyTorch %9.2f images/s, ERMoE %9.2f\n' "$2" "$1" "$theirs_rate" "$ours_rate"
}

all_rounds() { # kind
  local round begun took=0
  coproc PEER_SIDE { exec "$python" "$peer" --serve --device "$device" --moe "$1" --batch "$batch" --steps "$steps" --warmup "$warmup" \
    "${peer_flags[@]}" ${MODE:+--mode "$MODE"} 2>"$scratch/peer.log"; }
  from_peer=${PEER_SIDE[0]} to_peer=${PEER_SIDE[1]} peer_id=$PEER_SIDE_PID
  hear
  echo "  $1: PyTorch's side is ready after $SECONDS s"
  for ((round = 1; round <= rounds; ++round)); do
    if ((round > 1 && SECONDS + took + took / 4 > limit)); then echo "  no time for round $round" && break; fi
    begun=$SECONDS
    one_round "$1" "$round"
    took=$((SECONDS - begun))
  done
  exec {to_peer}>&- # it ends with its input
  wait "$peer_id" || true
}

echo "$workload, batch $batch, $rounds rounds of $steps steps after $warmup; $machine, load average $(cut -d' ' -f1 /proc/loadavg)"
for kind in "${kinds[@]}"; do all_rounds "$kind"; done

code=0
"$python" - "$target" "$scratch" "${kinds[@]}" <<'PYTHON' || code=$?
import json, statistics, sys
target, folder, kinds = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
low = False
print(f"\n{'step':<8} {'PyTorch':>10} {'ERMoE':>10} {'ratio':>7}   {'peak GiB':>16}   rounds")
for kind in kinds:
    torch = [json.loads(line) for line in open(f"{folder}/{kind}.torch")]
    heads = [json.loads(line) for line in open(f"{folder}/{kind}.ours")]
    ours = [head["results"][0] for head in heads]
    theirs_rates, rates = [t["img_s"] for t in torch], [o["images_per_second"] for o in ours]
    ratio = statistics.median(rates) / statistics.median(theirs_rates)
    low |= ratio < target
    memory = f"{torch[-1].get('peak_GB', '-')} {max(o['peak_bytes'] for o in ours) / 2**30:.1f}"
    each = " ".join(f"{a / b:.2f}" for a, b in zip(rates, theirs_rates))
    print(f"{kind:<8} {statistics.median(theirs_rates):10.2f} {statistics.median(rates):10.2f} {ratio:7.2f}   {memory:>16}   {each}")
    print(f"         PyTorch {torch[-1]['torch']}, {'compiled' if torch[-1]['compile'] else 'not compiled'}, {torch[-1]['params_M']} M parameters; "
          f"ERMoE {heads[-1]['precision']}, {ours[-1]['parameters'] / 1e6:.2f} M, "
          f"{'one CUDA graph' if ours[-1].get('recorded') else 'op by op'}; {heads[-1]['device']}")
print(f"images/s, medians of the rounds; target {target}: {'missed' if low else 'reached'}")
sys.exit(1 if low else 0)
PYTHON
if ((kernels > 0)); then
  echo
  ours "${kinds[0]}" --kernels "$kernels" || true
fi
exit $code
