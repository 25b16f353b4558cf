#!/usr/bin/env bash
# Training by three ranks of which one is killed, stopped or hangs, in each phase of a step and in the middle of a checkpoint: the others
# say so and end in time, and the run goes on from a whole checkpoint, with as many ranks or others, as if nothing had been.
# mpirun's own way to end all ranks is kept off (--enable-recovery): they end by themselves.
#   tests/faults.sh build/cpu
#   tests/faults.sh build/cuda cuda    two ranks, with a GPU each; steps op by op and replayed
# Works in a folder of its own under TMPDIR, which goes when all checks hold. Ends with 77 where there is no MPI.
set -u
build="$(cd "${1:?usage: tests/faults.sh BUILD_FOLDER [cuda]}" && pwd)"
device="${2:-cpu}"
program="$build/tests/ermoe_tests_ranks_faults" train="$build/tools/ermoe-train"
for built in "$program" "$train"; do [ -x "$built" ] || { echo "$built is not built"; exit 2; }; done
if [ "$device" = cpu ]; then
  ranks=3
  timeout_s=7 # of the watch: the run ends within it
  at_once=4   # cases that run side by side
  every=2     # steps between checkpoints
else
  ranks=2
  timeout_s=9
  at_once=2
  every=1
  export NCCL_NVLS_ENABLE=0
fi
. "$(dirname "$0")/rank_cases.sh"
export program

# Eight steps.
settings=(--data synthetic:classes=4,size=16,count=130,channels=1 --model.patch 4 --model.width 32 --model.depth 2 --model.heads 2
  --model.dropout 0.1 --augment.flip true --moe.experts 4 --moe.hidden 32 --optim.ema 0.9 --train.batch 10 --train.steps 8
  --train.log_every 1 --train.eval_every 100 --checkpoint.every $every --train.precision f32 --device "$device" --threads 1)
columns="step split loss grad_norm accuracy"

# Without MPI there is one rank, which looks after nobody.
require_mpi() {
  command -v mpirun >/dev/null || { echo "skipped: there is no mpirun"; exit 77; }
  if OMPI_COMM_WORLD_SIZE=2 "$train" "${settings[@]}" 2>&1 | grep -q "has no MPI"; then
    echo "skipped: this build has no MPI"
    exit 77
  fi
}

test_whole() {
  section "without a fault"
  launch -n $ranks "$train" "${settings[@]}" --out whole >out 2>err && rows whole/metrics.csv $columns >whole.rows &&
    [ "$(wc -l <whole.rows)" -eq 9 ]
  report "$ranks ranks train eight steps and evaluate" $?
}

# Images with captions in a folder: twelve to train on and five to evaluate on, plain ones, with one to three captions each.
made_pairs() {
  local i c part
  mkdir -p pairs && echo "image,caption,split" >pairs/captions.csv
  for ((i = 0; i < 17; i++)); do
    part=train
    [ $i -ge 12 ] && part=val
    { printf 'P6\n8 8\n255\n'; head -c 192 /dev/zero | tr '\0' "\\$(printf %o $((40 + 12 * i)))"; } >"pairs/$i.ppm"
    for ((c = 0; c <= i % 3; c++)); do echo "$i.ppm,picture number $i in grey $c,$part" >>pairs/captions.csv; done
  done
}

# Each image and each caption is seen by one rank, and all compare all: losses over the pairs of all ranks and recalls are those of one rank.
test_pairs() {
  section "images and captions, shared among ranks"
  local n settings=(--data pairs --model.image_size 8 --model.patch 4 --model.width 32 --model.depth 2 --model.heads 2 --moe.experts 4
    --moe.hidden 32 --text.depth 2 --text.width 32 --text.heads 2 --text.context 12 --text.vocabulary 560 --text.moe_layers last:1
    --retrieval.projection 16 --augment.flip --optim.ema 0.9 --train.batch 7 --train.eval_batch 4 --train.steps 6 --train.log_every 1
    --train.eval_every 3 --train.precision f32 --device "$device" --threads 1)
  made_pairs
  for n in 1 2 3 "2 --parallel.expert 2"; do
    if [ "$device" = cuda ] && [ "${n:0:1}" -gt $ranks ]; then continue; fi
    launch -n ${n:0:1} "$train" "${settings[@]}" ${n:1} --out "pairs.${n// /}" >out 2>err &&
      rows "pairs.${n// /}/metrics.csv" step split loss grad_norm i2t_r1 t2i_r1 t2i_r5 t2i_mean_rank rsum >"pairs.${n// /}.rows" &&
      [ "$(wc -l <"pairs.${n// /}.rows")" -eq 8 ] && alike pairs.1.rows "pairs.${n// /}.rows"
    report "${n:0:1} ranks${n:1}" $?
  done
}

# left_whole WHO PHASE: a rank that failed inside the writing left a half checkpoint, which has no name of a whole one.
left_whole() {
  [ "$1|$2" = "0|committing a checkpoint" ] || return 0
  [ -s run/checkpoints/.step-6.partial/optimizer.safetensors ] && [ ! -e run/checkpoints/step-6 ] && return
  echo "        checkpoints: $(ls -A run/checkpoints)"
  return 1
}

# goes_on RANKS STEP: so many ranks continue after that step, from what `latest` names, and end with the rows of the run without a fault:
# those to the last figure with as many ranks that compute on CPUs.
goes_on() {
  launch -n "$1" "$train" --resume run --device "$device" --threads 1 >resumed.out 2>resumed.err
  local code=$?
  rows run/metrics.csv $columns >rows
  if [ $code -ne 0 ] || ! grep -qE "continuing after step $2\$" resumed.out || grep -q "cannot be used" resumed.out ||
    compgen -G "run/checkpoints/.*partial" >/dev/null; then
    echo "        $1 ranks do not go on after step $2: code $code, $(grep -hE "continuing|cannot|^ermoe" resumed.out resumed.err)"
    return 1
  fi
  if [ "$1" -eq 3 ] && [ "$device" = cpu ]; then cmp -s ../whole.rows rows; else alike ../whole.rows rows; fi
  [ $? -eq 0 ] || { echo "        $1 ranks end elsewhere than the run without a fault"; return 1; }
}

# case_of FOLDER WHAT WHO STEP PHASE SENTENCE RESUMED RANKS: rank WHO does WHAT at the begin of PHASE; each other says SENTENCE about it; RANKS
# ranks go on after step RESUMED.
case_of() {
  local what="$2" who="$3" step="$4" phase="$5" sentence="$6" resumed="$7" by="$8" rank launcher fault process left bad=0
  mkdir "$1" && cd "$1" || return
  launch --enable-recovery -n $ranks bash -c 'one_rank "$@"' one_rank "$what" "$who" "$step" "$phase" "$timeout_s" "${settings[@]}" \
    --out "$PWD/run" >launcher 2>&1 &
  launcher=$!
  local others=()
  for ((rank = 0; rank < ranks; rank++)); do [ "$rank" -eq "$who" ] || others+=("$rank"); done
  all_ended "${others[@]}"
  fault="" process=""
  read -r _ _ fault _ _ process < <(grep "^fault at" "out.$who")
  local about="rank $who \([^ ]+, process $process\) $sentence; the last checkpoint is whole"
  for rank in "${others[@]}"; do
    local to_resume=""
    [ "$rank" -ne 0 ] || to_resume="; to go on: --resume $PWD/run"
    ended "$rank" 1 "rank $rank of $ranks \([^ ]+\): $about$to_resume\$" "${fault:-0}" || bad=1
  done
  left_whole "$who" "$phase" || bad=1
  case "$what" in
    hang) ended "$who" 1 "rank $who of $ranks .*$about" "$fault" || bad=1 ;;
    stop) kill -KILL "$process" ;; # it would stay, and the launcher with it
    wake)
      fault=$EPOCHREALTIME
      kill -CONT "$process" && all_ended "$who"
      ended "$who" 1 "rank $who of $ranks .*: rank [0-2] .* (was last heard of|died) " "$fault" || bad=1
      ;;
  esac
  if [ $bad -ne 0 ]; then left=$(pgrep -f -- "--out $PWD/run") && kill -KILL $left 2>/dev/null; fi
  wait $launcher
  left=$(pgrep -f -- "--out $PWD/run") && echo "        processes are left: $left" && bad=1
  goes_on "$by" "$resumed" || bad=1
  report "$what of rank $who in step $step, $phase; then the run goes on by $by" $bad
}

stopped="was last heard of [0-9]+ s ago, %s: it is stopped, or its host or the network to it is gone"

# everywhere WHAT SENTENCE: that fault of each rank in each phase; SENTENCE is a format with a place for what the rank did.
everywhere() {
  local who phase by=0
  for who in 0 1 2; do
    for phase in "the forward pass" "the backward pass" "the optimizer's step"; do
      printf "%s|%s|5|%s|$2|4|%s\n" "$1" "$who" "$phase" "in step 5, $phase" $((by++ % 4 + 1))
    done
  done
  # The checkpoint of step 6 is rank 0's to write; where that is done, it counts.
  phase="committing a checkpoint"
  printf "%s|0|6|%s|$2|4|2\n" "$1" "$phase" "in step 6, $phase"
  phase="writing a checkpoint"
  for who in 1 2; do printf "%s|$who|6|%s|$2|[46]|%s\n" "$1" "$phase" "in step 6, $phase" $((who + 2)); done
}

on_cpus() {
  section "SIGKILL"
  everywhere kill "died %s" >table
  in_turn <table
  section "SIGSTOP"
  everywhere stop "$stopped" >table
  in_turn <table
  section "between phases, ranks that go on when the others have ended, and one that hangs"
  in_turn <<TABLE
kill|0|6|writing a checkpoint|died in step 6, writing a checkpoint|4|3
stop|2|5|loading images|$(printf "$stopped" "in step 5, loading images")|4|2
wake|0|5|the backward pass|$(printf "$stopped" "in step 5, the backward pass")|4|3
wake|1|5|the optimizer's step|$(printf "$stopped" "in step 5, the optimizer's step")|4|3
wake|0|6|committing a checkpoint|$(printf "$stopped" "in step 6, committing a checkpoint")|[46]|3
kill|1|5|gradients over ranks|died in step 5, gradients over ranks|4|4
hang|2|5|the backward pass|hangs: it has been in step 5, the backward pass, for [0-9]+ s, and rank [01] has waited [0-9]+ s in reduce_scatter number [0-9]+|4|1
TABLE
}

# The first two steps go to the GPU op by op, then they are replayed.
on_gpus() {
  local who phase what said by=0
  for what in kill stop; do
    said="died %s"
    [ $what = kill ] || said="$stopped"
    for who in 0 1; do
      for phase in "the forward pass" "the backward pass" "the optimizer's step"; do
        printf "%s|%s|2|%s|$said|1|%s\n" $what "$who" "$phase" "in step 2, $phase" $((by++ % 2 + 1))
      done
      phase="a step on the GPU"
      printf "%s|%s|5|%s|$said|4|%s\n" $what "$who" "$phase" "in step 5, $phase" $((by++ % 2 + 1))
    done
  done >table
  for who in 0 1; do
    said="hangs: it has been in step 5, %s, for [0-9]+ s, and rank $((1 - who)) has waited [0-9]+ s in .*"
    printf "hang|%s|5|%s|$said|4|2\n" "$who" "loading images" "loading images"
  done >>table
  section "SIGKILL, SIGSTOP, and ranks that hang"
  in_turn <table
}

require_mpi
test_whole
test_pairs
if [ "$device" = cpu ]; then on_cpus; else on_gpus; fi
all_hold
