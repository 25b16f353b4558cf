#!/usr/bin/env bash
# Several ranks over MPI: their collectives, and how they end when one of them dies, is stopped, hangs or fails.
#   tests/ranks.sh build/cpu
# Works in a folder of its own under TMPDIR, which goes when all checks hold. Ends with 77 where there is no MPI.
set -u
program="$(cd "${1:?usage: tests/ranks.sh BUILD_FOLDER}" && pwd)/tests/ermoe_tests_ranks"
[ -x "$program" ] || { echo "$program is not built"; exit 2; }
tests="$(cd "$(dirname "$0")" && pwd)"
timeout_s=6 # of the watch: the run ends within it
at_once=8   # cases that run side by side; most of their time they wait
. "$(dirname "$0")/rank_cases.sh"
export program

# refused NAME PATTERN VARIABLE=VALUE…: with what a launcher sets, one process ends with code 2 and one sentence.
refused() {
  local name="$1" pattern="$2"
  shift 2
  env "$@" "$program" collectives >out 2>err </dev/null
  [ $? -eq 2 ] && [ "$(wc -l <err)" -eq 1 ] && grep -q -- "$pattern" err
  report "$name" $?
}

test_launchers() {
  section "what launchers say"
  "$program" collectives >out 2>err </dev/null
  report "one process alone" $?
  if OMPI_COMM_WORLD_SIZE=2 "$program" collectives 2>&1 | grep -q "has no MPI"; then
    refused "a build without MPI is none of several" "OMPI_COMM_WORLD_SIZE=2" OMPI_COMM_WORLD_SIZE=2
    [ $failed -eq 0 ] && echo "skipped the rest: this build has no MPI" && exit 77
    exit 1
  fi
  command -v mpirun >/dev/null || { echo "skipped the rest: there is no mpirun"; exit 77; }
  refused "several, of whom MPI finds one" "MPI found 1.*srun --mpi=pmix" OMPI_COMM_WORLD_SIZE=4
  refused "srun without a way to find the others" "srun --mpi=pmix" SLURM_NTASKS=4 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4
  SLURM_NTASKS=4 "$program" collectives >out 2>err </dev/null
  report "once inside an allocation for several" $?
}

test_collectives() {
  section "collectives"
  local n
  for n in 1 2 3 4; do
    launch -n "$n" "$program" collectives >"out.$n" 2>"err.$n" && grep -q "^$n ranks: 0 checks failed" "out.$n"
    report "$n ranks" $?
    grep -h FAILED "out.$n" | head -5
  done
}

# on_gpus CLAIM WHAT PROGRAM WORD: with a GPU for each rank, on as many as there are, none of WHAT fails.
on_gpus() {
  local claim="$1" what="$2" n status
  shift 2
  for n in 2 4 8; do
    launch -n "$n" "$@" >"out.$n" 2>"err.$n"
    status=$?
    if grep -q ^skipped "out.$n"; then sed -n '/^skipped/p' "out.$n"; return; fi
    [ $status -eq 0 ] && grep -q "^$n ranks: 0 $what failed" "out.$n"
    report "$n ranks with a GPU each: $claim" $?
    grep -h FAILED "out.$n" | head -5
  done
}

test_gpus() {
  section "ranks with a GPU each"
  on_gpus "collectives" checks "$program" gpu-collectives
  on_gpus "losses of 50 steps, replicas' weights" cases "${program}_training" gpu
}

test_slices() {
  section "files that ranks write and read in pieces"
  local n
  for n in 1 2 3 4; do
    mkdir "slices.$n"
    launch -n "$n" "$program" slices "$PWD/slices.$n" >"out.$n" 2>"err.$n" && grep -q "^$n ranks: 0 checks failed" "out.$n"
    report "$n ranks" $?
    grep -h FAILED "out.$n" | head -5
  done
}

test_training() {
  section "training that ranks share is training"
  local n
  for n in 1 2 4; do
    launch -n "$n" "${program}_training" >"out.$n" 2>"err.$n" && grep -q "^$n ranks: 0 cases failed" "out.$n"
    report "$n ranks: losses, norms and weights of 20 steps, ten images a step" $?
    grep -h FAILED "out.$n" | head -5
  done
}

test_losses() {
  section "losses over the pairs of all ranks"
  local n
  for n in 1 2 4; do
    launch -n "$n" "${program}_losses" >"out.$n" 2>"err.$n" && grep -q "^$n ranks: 0 losses failed" "out.$n"
    report "$n ranks: values and all gradients, ranks without pairs too" $?
    grep -h FAILED "out.$n" | head -5
  done
  on_gpus "losses over pairs, recorded" losses "${program}_losses" gpu
}

test_program() {
  section "ermoe-train"
  local n train="${program%/tests/*}/tools/ermoe-train" columns="step split loss grad_norm accuracy top5 block1/gini block1/class_information"
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  for n in 1 2 3; do
    launch -n "$n" "$train" --data synthetic:classes=4,size=16,count=130,channels=1 --model.patch 4 --model.width 32 --model.depth 2 \
      --model.heads 2 --moe.experts 4 --moe.hidden 32 --optim.ema 0.9 --model.dropout 0.1 --model.drop_path 0.1 --augment.crop_padding 2 \
      --augment.flip true --augment.randaugment_n 1 --train.batch 10 --train.epochs 3 --train.log_every 3 --train.eval_batch 7 \
      --optim.warmup_steps 3 --device cpu --threads 1 --out "run.$n" >"out.$n" 2>"err.$n"
    report "$n ranks train, evaluate and write one run folder" $?
    rows "run.$n/metrics.csv" $columns >"rows.$n"
  done
  for n in 2 3; do
    alike rows.1 "rows.$n"
    report "$n ranks: what one process logs and evaluates" $?
  done
  local few=(--model.patch 4 --model.width 32 --model.depth 2 --model.heads 2 --moe.experts 4 --train.batch 10 --device cpu --threads 1)
  launch -n 1 "$train" --data synthetic:classes=4,size=16,count=130,channels=1 "${few[@]}" --out unlike : \
    -n 1 "$train" --data synthetic:classes=4,size=16,count=131,channels=1 "${few[@]}" --out unlike >out 2>err
  [ $? -ne 0 ] && grep -q "data.path: rank 1 finds [0-9]* training images, and rank 0 finds [0-9]*" err
  report "ranks that find other data say so" $?
  launch --enable-recovery -n 3 "$train" --data synthetic:classes=4,size=16,count=130,channels=1 "${few[@]}" --parallel.expert 2 --out wrong \
    >out 2>err
  grep "^ermoe-train: " err >said
  [ "$(wc -l <said)" -eq 3 ] && [ "$(sort -u said | wc -l)" -eq 1 ] && grep -q "^ermoe-train: parallel.expert" said && [ ! -e wrong ]
  report "a wrong setting: each says that, and nobody is said to have died" $?
  launch -n 3 "$train" --resume run.3 --train.epochs 4 --device cpu --threads 1 >out 2>err && grep -q "continuing after step 39" out
  report "3 ranks go on" $?
}

# Each rank makes all experts of a dense network and keeps its own, also where experts are spread.
test_upcycling() {
  section "ermoe-train, experts from a dense network"
  local n train="${program%/tests/*}/tools/ermoe-train" columns="step split loss grad_norm accuracy block1/gini"
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  local dense=(--data synthetic:classes=4,size=16,count=130,channels=1 --model.patch 4 --model.width 32 --model.depth 2 --model.heads 2
    --train.batch 10 --device cpu --threads 1 --train.log_every 1)
  launch -n 1 "$train" "${dense[@]}" --moe.layers none --train.steps 10 --out dense >out 2>err
  for n in "1" "2" "2 --parallel.expert 2"; do
    launch -n ${n%% *} "$train" "${dense[@]}" --init dense --moe.experts 4 --moe.basis disjoint --moe.basis_rank 4 --moe.combine softmax --moe.free_experts 1 \
      --moe.threshold 0.2 --train.steps 4 --train.eval_every 2 --out "up.${n// /}" ${n#${n%% *}} >out 2>err
    rows "up.${n// /}/metrics.csv" $columns >rows.up
    [ "$n" = 1 ] && cp rows.up rows.alone
    alike rows.alone rows.up
    report "-n $n: what one process logs and evaluates" $?
  done
}

# Three images a step, of which rank 1 has two: it works longer. Of what it has to wait for, its time says nothing.
test_slowest() {
  section "ermoe-train, the slowest rank and the most loaded expert"
  local train="${program%/tests/*}/tools/ermoe-train"
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  launch -n 2 "$train" --data synthetic:classes=4,size=48,count=130,channels=1 --model.patch 4 --model.width 64 --model.depth 4 \
    --model.heads 2 --moe.experts 4 --moe.layers 1,3 --train.batch 3 --train.steps 40 --train.log_every 10 --train.eval_every 1000 \
    --device cpu --threads 1 --out slowest >out 2>err
  rows slowest/metrics.csv split slowest_rank slowest_over_mean loaded_block loaded_expert >slowest.rows
  awk '$1 == "train" { all += 1; named += $2 == 1 && $3 > 1.1 } END { exit !(all == 4 && named >= 2) }' slowest.rows && # other work may take a row's time
    grep -q "| rank 1 +[0-9]* %" out
  report "the rank with most images" $?
  awk '$1 == "train" { all += ($4 == 1 || $4 == 3) && $5 >= 0 && $5 <= 3 } END { exit all != 4 }' slowest.rows
  report "an expert of a layer that has some" $?
  head -n 1 run.1/metrics.csv >columns && grep -q loaded_expert columns && ! grep -q slowest columns
  report "one process has no slowest rank" $?
}

# Ranks that do not share a working directory, and a disk that is full at the second checkpoint.
test_checkpoints() {
  section "ermoe-train, checkpoints of several ranks"
  local train="${program%/tests/*}/tools/ermoe-train" size left
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  local tiny=(--data synthetic:classes=4,size=16,count=130,channels=1 --model.patch 4 --model.width 32 --model.depth 2 --model.heads 2
    --moe.experts 4 --optim.ema 0.9 --train.batch 10 --device cpu --threads 1)
  mkdir away
  launch -n 1 "$train" "${tiny[@]}" --train.steps 3 --out here : -n 2 -wdir away "$train" "${tiny[@]}" --train.steps 3 --out here >out 2>err &&
    [ -z "$(ls away)" ] && launch -n 2 "$train" --resume here --train.steps 5 --device cpu --threads 1 >out 2>err
  report "ranks in another working directory write into rank 0's run folder" $?
  mkdir disk
  if ! mount -t tmpfs -o size=16m tmpfs disk 2>/dev/null; then echo "skipped: a small disk can only be mounted by root"; return; fi
  launch -n 3 "$train" "${tiny[@]}" --train.steps 3 --out disk/run >out 2>err
  size=$(du -k disk/run/checkpoints/step-3 | cut -f1)
  left=$(df -k --output=avail disk | tail -1)
  dd if=/dev/zero of=disk/filler bs=1k count=$((left - size / 2)) status=none
  launch --enable-recovery -n 3 "$train" --resume disk/run --train.steps 6 --device cpu --threads 1 >out 2>err
  [ "$(grep -cE "^ermoe-train: rank [0-2]: .*/disk/run/checkpoints/\.step-6\.partial/.*No space left on device" err)" -eq 3 ]
  report "a full disk: all ranks say the same" $?
  [ "$(ls -A disk/run/checkpoints | tr '\n' ' ')" = "best latest step-3 " ]
  report "and nothing half written is left, nor anything whole lost" $?
  rm disk/filler
  launch -n 2 "$train" --resume disk/run --train.steps 6 --device cpu --threads 1 >out 2>err && grep -q "continuing after step 3" out
  report "with room again, two ranks go on" $?
  umount disk
}

# Two ranks with one image at a time: the second has none in any batch of an evaluation.
test_empty_parts() {
  section "ermoe-train, evaluations in which a rank has no images"
  local train="${program%/tests/*}/tools/ermoe-train" expert
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  for expert in 1 2; do
    launch -n 2 "$train" --data synthetic:classes=4,size=16,count=40,channels=1 --model.patch 4 --model.width 32 --model.depth 2 \
      --model.heads 2 --moe.experts 4 --train.batch 10 --train.steps 6 --train.eval_every 3 --train.eval_batch 1 --parallel.expert $expert \
      --device cpu --threads 1 --out "empty.$expert" >out 2>err
    report "one image a batch for two ranks, $expert with the experts together" $?
  done
}

# What is tried leaves nothing behind: the run is the one that takes its choice from the start, to the last bit and byte.
test_autotune() {
  section "ermoe-train --parallel.autotune"
  local train="${program%/tests/*}/tools/ermoe-train" chosen columns="step split loss grad_norm memory_mib accuracy top5 block1/gini"
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  local tiny=(--data synthetic:classes=4,size=16,count=130,channels=1 --model.patch 4 --model.width 32 --model.depth 2 --model.heads 2
    --moe.experts 2 --train.batch 10 --train.steps 12 --train.log_every 3 --device cpu --threads 1)
  launch -n 4 "$train" "${tiny[@]}" --parallel.autotune true --out tuned >out 2>err
  [ "$(grep -c " ms a step" out)" -eq 2 ] && [ "$(grep -c " ms a step, taken" out)" -eq 1 ] && grep -q "^parallel experts on each rank" out
  report "each number of ranks is timed, those above the experts are not" $?
  chosen=$(sed -n 's/.*"expert": \([0-9]*\),.*/\1/p' tuned/config.json)
  case "$(grep " taken" out)" in *"on each rank"*) [ "$chosen" = 1 ] ;; *"over 2 ranks"*) [ "$chosen" = 2 ] ;; *) false ;; esac
  report "and the one that is taken is recorded" $?
  launch -n 4 "$train" "${tiny[@]}" --parallel.expert "${chosen:-0}" --out given >out 2>err
  rows tuned/metrics.csv $columns >rows.tuned
  rows given/metrics.csv $columns >rows.given
  [ -s rows.tuned ] && cmp -s rows.tuned rows.given
  report "the run is the one with that number" $?
  launch -n 1 "$train" "${tiny[@]}" --parallel.autotune true --out alone >out 2>err && grep -q "autotune has nothing to choose: 1 rank" out
  report "one rank has nothing to choose" $?
  python3 "$tests/make_study.py" brains
  launch -n 2 "$train" --data brains --data.volumes "t1/{participant_id}.nii.gz" --model.dimensions 3 --loss.kind soft_labels --data.spacing 4 \
    --model.patch 4 --model.width 16 --model.depth 2 --model.heads 2 --moe.experts 2 --moe.hidden 16 --train.batch 4 --train.steps 2 \
    --device cpu --threads 1 --parallel.autotune true --out aged >out 2>err
  [ "$(grep -c " ms a step" out)" -eq 2 ] && grep -q "^done " out
  report "ages, with many outputs and one target a volume, are timed too" $?
}

# Where experts are spread rows travel, and not one of them is lost.
test_layer_bench() {
  section "ermoe-bench layer"
  local bench="${program%/tests/*}/tools/ermoe-bench" expert rows
  [ -x "$bench" ] || { echo "skipped: $bench is not built"; return; }
  for expert in 1 2; do
    launch -n 4 "$bench" layer --workload c10 --batch 1 --steps 2 --warmup 1 --expert $expert --device cpu --threads 1 --json >"layer.$expert" 2>err
    report "4 ranks, $expert together" $?
  done
  grep -q '"sent_bytes": 0,' layer.1 && grep -q '"most_rows": 130,' layer.1
  report "all experts on each: nothing is sent" $?
  rows=$(sed -n 's/.*"most_rows": \([0-9]*\),/\1/p' layer.2)
  ! grep -q '"sent_bytes": 0,' layer.2 && [ "${rows:-0}" -ge 130 ] && [ "$rows" -le 260 ]
  report "half of them on each: rows are" $?
}

# goes_on FOLDER RANKS EXPERT_RANKS: so many continue that run after step 6, and end with its rows: those to the last figure where experts are
# spread as they were.
goes_on() {
  local again="$1.$2.$3" columns="step split loss grad_norm accuracy top5"
  cp -r "$1" "$again" && rm -r "$again/checkpoints/step-"{9,12} && echo step-6 >"$again/checkpoints/latest"
  launch -n "$2" "$train" --resume "$again" --parallel.expert "$3" --device cpu --threads 1 >out 2>err
  local code=$?
  rows "$1/metrics.csv" $columns >whole.rows
  rows "$again/metrics.csv" $columns >again.rows
  if [ $code -ne 0 ] || ! grep -q "continuing after step 6\$" out || [ "$(wc -l <again.rows)" -ne 16 ]; then
    echo "        $(wc -l <again.rows) rows, code $code: $(grep -h "^ermoe" err)"
    return 1
  fi
  if [ "$2 $3" = "4 4" ]; then cmp -s whole.rows again.rows; else alike whole.rows again.rows; fi
}

# A program that evaluates alone finds whole tensors in what the four ranks wrote: those of model.safetensors, or the average.
evaluates_alone() {
  "${train%train}eval" --checkpoint "$1/checkpoints/step-12" --json --device cpu --threads 1 >eval.json 2>err || return 1
  rows "$1/metrics.csv" accuracy top5 loss | tail -n 1 >reported
  sed -E 's/.*"accuracy":([^,]*),"top5":([^,]*),"loss":([^,]*),.*/\1 \2 \3/' eval.json >alone.rows
  alike reported alone.rows
}

# Experts that four ranks hold together, saved by them; other numbers of ranks, and other spreads, read the same files.
test_spread() {
  section "ermoe-train, experts spread over ranks"
  local train="${program%/tests/*}/tools/ermoe-train" run settings layout
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  while IFS='|' read -r run settings; do
    launch -n 4 "$train" --data synthetic:classes=4,size=16,count=130,channels=1 --model.patch 4 --model.width 32 --model.depth 2 \
      --model.heads 2 --moe.hidden 32 $settings --optim.lr 0.01 --train.batch 10 --train.steps 12 --train.log_every 1 --train.eval_every 3 \
      --checkpoint.every 3 --checkpoint.keep 9 --parallel.expert 4 --device cpu --threads 1 --out "$run" >out 2>err
    report "$run: four ranks train, each with its experts" $?
    for layout in "4 4" "4 2" "2 1" "1 1"; do
      goes_on "$run" $layout
      report "$run: ranks and spread $layout go on from its step 6, and end where it does" $?
    done
    evaluates_alone "$run"
    report "$run: evaluated alone, the last checkpoint is what training reported" $?
  done <<TABLE
six_experts|--moe.experts 6 --optim.ema 0.9
disjoint|--moe.experts 4 --moe.basis disjoint --optim.ema 0.9
no_average|--moe.experts 5 --moe.free_experts 1 --moe.threshold 0.1 --moe.basis disjoint
TABLE
}

# A training that would take minutes, of three ranks, into folder $1; goes on beside us as $trained.
start_training() {
  mpirun --oversubscribe --bind-to none --enable-recovery -n 3 "$train" --data synthetic:classes=4,size=16,count=600,channels=1 --model.patch 4 \
    --model.width 64 --model.depth 2 --model.heads 2 --moe.experts 4 --train.batch 10 --train.epochs 100000 --checkpoint.every 1 \
    --parallel.timeout 15 --device cpu --threads 1 --out "$1" >"out.$1" 2>"err.$1" </dev/null &
  trained=$!
  local tries
  for ((tries = 0; tries < 300; ++tries)); do [ -e "$1/checkpoints/latest" ] && return; sleep 0.1; done
  echo "        no checkpoint after 30 s"
}

test_program_ends() {
  section "ermoe-train, ended"
  local train="${program%/tests/*}/tools/ermoe-train" victim before
  [ -x "$train" ] || { echo "skipped: $train is not built"; return; }
  start_training signalled
  kill -USR1 "$trained"
  wait "$trained"
  grep -q "SIGUSR1 came: stopped after step [0-9]* of .* all saved" out.signalled
  report "a signal to mpirun stops all ranks after the same step, with a checkpoint" $?
  start_training told_one
  kill -TERM "$(pgrep -f "^$train .*--out told_one" | tail -n 1)"
  wait "$trained"
  grep -q "SIGTERM came: stopped after step [0-9]* of .* all saved" out.told_one
  report "a signal to one rank does the same" $?
  start_training killed
  sleep 1 # what a rank does is told four times a second
  victim=$(pgrep -f "^$train .*--out killed" | tail -n 1)
  kill -KILL "$victim"
  wait "$trained"
  [ "$(grep -cE "^ermoe-train: rank [0-2] of 3 .*: rank [0-2] \([^ ]+, process $victim\) died in step [0-9]+, " err.killed)" -eq 2 ]
  report "a rank is killed: the two others say so" $?
  before=$(sed 's/[^0-9]*//g' killed/checkpoints/latest)
  launch -n 2 "$train" --resume killed --train.epochs 0 --train.steps $((before + 5)) --device cpu --threads 1 >out 2>err &&
    grep -q "continuing after step $before" out
  report "and two ranks go on from its last checkpoint" $?
}

# case_of FOLDER WHAT WHO WHERE SENTENCE CODE: rank WHO does WHAT while the others are in WHERE; each says SENTENCE about it.
case_of() {
  local what="$2" who="$3" where="$4" sentence="$5" code="$6" rank launcher fault process bad=0
  mkdir "$1" && cd "$1" || return
  launch --enable-recovery -n 4 bash -c 'one_rank "$@"' one_rank fault "$what" "$who" "$where" "$timeout_s" >launcher 2>&1 &
  launcher=$!
  local others=()
  for rank in 0 1 2 3; do [ "$rank" -eq "$who" ] || others+=("$rank"); done
  all_ended "${others[@]}"
  read -r _ _ fault _ _ process <"out.$who"
  local about="rank $who \([^ ]+, process $process\) $sentence"
  for rank in "${others[@]}"; do ended "$rank" "$code" "rank $rank of 4 \([^ ]+\): $about; the last checkpoint is whole\$" "$fault" || bad=1; done
  case "$what" in
    throw | misuse) ended "$who" "$code" ".*" "$fault" || bad=1 ;;
    hang) ended "$who" "$code" "rank $who of 4 .*$about" "$fault" || bad=1 ;;
    stop) kill -KILL "$process" ;; # it would stay, and the launcher with it
  esac
  wait $launcher
  report "$what of rank $who, the others in $where" $bad
}

# everywhere WHAT SENTENCE: that case of each rank, at each place.
everywhere() {
  local who where
  for who in 0 1 2 3; do for where in all_reduce all_to_all barrier outside; do echo "$1|$who|$where|$2|1"; done; done
}

test_faults() {
  local where="in step 3, backward"
  section "SIGKILL"
  everywhere kill "died $where" >table
  in_turn <table
  section "SIGSTOP"
  everywhere stop "was last heard of [0-9]+ s ago, $where: it is stopped, or its host or the network to it is gone" >table
  in_turn <table
  section "errors, and ranks that do not come"
  local waits="and rank [0-9] has waited [0-9]+ s in all_reduce number"
  in_turn <<TABLE
throw|0|all_reduce|ended: the disk is full|1
throw|2|outside|ended: the disk is full|1
misuse|1|barrier|ended: data.path: nothing lies there|2
exit|3|all_reduce|died $where|1
inside|1|barrier|died $where, in barrier number [0-9]+|1
inside|0|all_to_all|died $where, in all_to_all number [0-9]+|1
stuck|2|all_reduce|died $where|1
hang|0|all_reduce|hangs: it has been $where, for [0-9]+ s, $waits [0-9]+|1
hang|3|all_reduce|hangs: it has been $where, for [0-9]+ s, $waits [0-9]+|1
TABLE
  section "no faults"
  launch -n 4 "$program" fault none 0 barrier >out 2>err
  report "nothing happens" $?
  launch -n 4 "$program" fault long 2 all_reduce 4 >out 2>err
  report "a checkpoint longer than the time-out" $?
  launch -n 4 "$program" fault kill 2 all_reduce $timeout_s >out 2>err
  [ $? -ne 0 ] && [ "$(grep -c "^ranks: rank . of 4 .* died" err)" -eq 3 ]
  report "as launchers do it without being told: all end, and three ranks say why" $?
}

test_launchers
test_collectives
test_gpus
test_slices
test_training
test_losses
test_program
test_upcycling
test_slowest
test_checkpoints
test_empty_parts
test_autotune
test_layer_bench
test_spread
test_program_ends
test_faults
all_hold
