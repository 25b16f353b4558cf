# Checks of ermoe-study from outside; tests/programs.sh sources it.

smoke="$tests/../docs/studies/smoke.json"
compare() { "$bin/ermoe-study" "$@"; }
finished() { find "$1" -name evaluation.json 2>/dev/null | wc -l; }
finished_reach() { [ "$(finished "$1")" -ge "$2" ]; }

# same_tables A B [ROW]: all figures agree but those of time and memory, and churn, which the first evaluation after a resume has not.
same_tables() {
  python3 - "$@" <<'PYTHON'
import json, sys
apart = ("images_per_s", "memory_mib", "churn")
def rows(path):
    table = json.load(open(path + "/table.json"))
    known = {}
    for row in table["rows"]:
        if len(sys.argv) > 3 and row["name"] != sys.argv[3]:
            continue
        for values in [row["values"], row["over_training"]] + [run["values"] for run in row["runs"]]:
            for key in apart:
                values.pop(key, None)
        for run in row["runs"]:
            del run["folder"], run["at_once"]
        known[row["name"]] = row
    return known
a, b = rows(sys.argv[1]), rows(sys.argv[2])
sys.exit(0 if a and a == b else 1)
PYTHON
}

test_study_killed() {
  local i process left=0
  for i in 1 3 5; do
    "$bin/ermoe-study" "$smoke" --out study_killed >out 2>err </dev/null &
    process=$!
    wait_for $process 60 finished_reach study_killed $i
    sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
    kill -KILL $process 2>/dev/null
    wait $process 2>/dev/null
    sleep 0.1
    pgrep -f "study_killed/" >/dev/null && left=1
  done
  report "killed three times: its children die with it" $left
  expect "the same command goes on" 0 "written: study_killed/table.md" compare "$smoke" --out study_killed
  check "to the table of a study never stopped" same_tables study study_killed
  # One long run, killed after its first checkpoint.
  local long=("$smoke" --only ermoe,dense --seeds 0 --train.steps 240 --train.eval_every 20)
  run compare "${long[@]}" --out study_long
  "$bin/ermoe-study" "${long[@]}" --out study_cut >out 2>err </dev/null &
  process=$!
  wait_for $process 60 test -s study_cut/ermoe/seed-0/checkpoints/latest
  kill -KILL $process
  wait $process 2>/dev/null
  expect "half a run goes on" 0 "ermoe, seed 0: goes on" compare "${long[@]}" --out study_cut
  check "to the same figures" same_tables study_long study_cut
}

test_study_stopped() {
  local process
  "$bin/ermoe-study" "$smoke" --train.steps 100000 --jobs 2 --out study_stopped >out 2>err </dev/null &
  process=$!
  wait_for $process 60 rows_reach study_stopped/ermoe/seed-0 3 && wait_for $process 60 rows_reach study_stopped/linear/seed-0 3
  expect "two studies in one folder" 2 "another ermoe-study is at work" compare "$smoke" --train.steps 100000 --out study_stopped
  kill -TERM $process
  wait $process
  code=$?
  [ $code -eq 0 ] && [ -s study_stopped/ermoe/seed-0/checkpoints/latest ] && [ -s study_stopped/linear/seed-0/checkpoints/latest ]
  report "SIGTERM goes on to the children, which save: exit 0" $?
}

test_study_of_numbers() {
  study study_brains
  echo '{"name": "ages", "rows": [{"name": "experts"}, {"name": "dense", "set": {"moe.layers": "none"}}], "baseline": "dense",
    "base": {"data.volumes": "t1/{participant_id}.nii.gz", "data.spacing": 4, "model.dimensions": 3, "model.patch": 4, "model.width": 16,
             "model.depth": 2, "model.heads": 2, "model.pool": "average", "moe.experts": 2, "moe.top_k": 1, "moe.hidden": 16,
             "loss.kind": "l1", "train.batch": 3, "train.epochs": 1, "train.threads": 1}}' >ages.json
  expect "a study of ages is judged by the mean error" 0 '^\| experts \| 1 \| [0-9.]+ \| [-+][0-9.]+ \([-+][0-9.]+ to [-+][0-9.]+\)\* ' \
    compare ages.json --data study_brains --out ages
  check "whose epochs are counted when they run" test "$(compare ages.json --data study_brains --out other --dry-run | grep -c ' 1 epochs')" -eq 2
}

test_study() {
  section "ermoe-study"
  expect "--help" 0 "usage: ermoe-study STUDY.json" compare --help
  expect "--dry-run counts what is missing" 0 "9 of 9 runs are missing: 108 steps" compare "$smoke" --out study --dry-run
  check "and makes nothing" test ! -e study
  expect "a study runs, and prints its table" 0 '^\| ermoe \| 2 \| [0-9.]+ ± [0-9.]+ \| [-+][0-9.]+ \(' compare "$smoke" --out study
  check "with its three files" test -s study/table.md -a -s study/table.csv -a -s study/table.json
  check "a line for each test image" test "$(wc -l <study/ermoe/seed-0/test_predictions.csv)" -eq 81
  check "which counts as many hits as the accuracy says" \
    json "d['images'] * d['accuracy'] == sum(a == b for _, a, b in (l.strip().split(',') for l in open('study/ermoe/seed-0/test_predictions.csv')))" \
    study/ermoe/seed-0/evaluation.json
  expect "nothing is run twice" 0 "0 of 9 runs are missing" compare "$smoke" --out study --dry-run
  expect "--table-only makes it again" 0 "written: study/table.md" compare "$smoke" --out study --table-only
  run compare "$smoke" --out study_again --only dense,ermoe
  check "a second run of rows gives the same figures" same_tables study study_again ermoe
  expect "another setting than the runs'" 2 "row ermoe: study/ermoe/seed-0 was run with optim.lr 0.001, not 0.5" \
    compare "$smoke" --out study --optim.lr 0.5
  echo '{"name": "s", "base": {"moe.experts": 4}, "rows": [{"name": "a"}, {"name": "b", "set": {"moe.top_k": 5}}]}' >wrong_study.json
  expect "a row that cannot be is refused before anything runs" 2 "wrong_study.json: row b: moe.top_k" \
    compare wrong_study.json --data "$data" --out study_wrong
  check "one sentence, and no folder" test "$(wc -l <err)" -eq 1 -a ! -e study_wrong
  expect "no data" 2 "row a: data.path is not set" compare wrong_study.json --moe.experts 5 --out study_wrong
  expect "no study" 2 "nowhere.json" compare nowhere.json
  expect "a row that is not there" 2 "did you mean dense" compare "$smoke" --only dens
  expect "seeds that are not there" 2 "no row has these seeds" compare "$smoke" --seeds 7
  echo '{"name": "s", "rows": [{"name": "bad", "set": {"optim.lr": 1e30, "optim.clip": 0, "train.max_bad_steps": 0}}, {"name": "good"}]}' \
    >half.json
  expect "a run that fails is told, the others go on: exit 1" 1 "bad, seed 0: FAILED, its training ended with code 1" \
    compare half.json "${tiny[@]}" --train.steps 12 --out study_half
  check "with the last lines of its log" grep -q "^    .*more than train.max_bad_steps" out
  check "and the table of what is there" grep -q "Not done yet: bad" study_half/table.md
  test_study_of_numbers
  test_study_killed
  test_study_stopped
}
