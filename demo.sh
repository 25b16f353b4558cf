#!/usr/bin/env bash
# From nothing to a trained ViT-ERMoE: installs what is missing, builds, trains on Fashion-MNIST, evaluates, draws a picture, writes a report.
#   ./demo.sh           the data set of the package dataset-fashion-mnist
#   ./demo.sh FOLDER    the four files of MNIST's format in FOLDER, .gz or not
# As root it installs missing packages; otherwise it prints the command that would.
set -euo pipefail
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
data=/usr/share/datasets/fashion-mnist
packages=(--demo)
case "${1:-}" in
  "") ;;
  -h | --help) usage; exit 0 ;;
  -*) echo "demo.sh: $1 is not an option" >&2; usage >&2; exit 2 ;;
  *)
    [ -d "$1" ] || { echo "demo.sh: $1: there is no such folder" >&2; exit 2; }
    data="$(cd "$1" && pwd)"
    packages=()
    ;;
esac
cd "$(dirname "$0")"

began=$(date +%s)
stage() { echo; echo "== $1 ($(($(date +%s) - began)) s since the start)"; }

stage "What this needs"
third_party/install.sh "${packages[@]}"
echo "everything is installed"

stage "Build"
preset=cpu
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
cmake --preset "$preset" >"$log" || { cat "$log"; exit 1; }
build=(cmake --build "build/$preset" -j "$(nproc)" --target ermoe-train ermoe-demo ermoe-report)
if [ -t 1 ]; then "${build[@]}"; else "${build[@]}" >"$log" || { cat "$log"; exit 1; }; fi
echo "build/$preset/tools holds the programs"

run="$PWD/runs/demo-$(date +%Y%m%d-%H%M%S)"
built=$(date +%s)
stage "Train"
"build/$preset/tools/ermoe-train" --preset fashion-mnist --data "$data" --out "$run"

stage "Result"
"build/$preset/tools/ermoe-demo" --run "$run"
"build/$preset/tools/ermoe-report" "$run"
took=$(($(date +%s) - built))
cat <<END
run        $run (config.json, metrics.csv, TensorBoard events, checkpoints)
time       $((took / 60)) min $((took % 60)) s since the build

Next
  the same without the calibrated scores: how flat is the load then?
    build/$preset/tools/ermoe-train --preset fashion-mnist --data $data --moe.standardize false
  plain experts behind a linear router, for comparison
    build/$preset/tools/ermoe-train --preset fashion-mnist --data $data --moe.router linear --moe.expert plain
  your own images, in folders named by their class
    build/$preset/tools/ermoe-train --preset cifar10-small --data FOLDER --model.classes 0
  every setting with its meaning
    build/$preset/tools/ermoe-train --help
END
