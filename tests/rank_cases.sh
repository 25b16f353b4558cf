# What tests/ranks.sh and tests/faults.sh share; they source it. Programs run as several ranks in a folder that goes when all checks hold.
# A case starts some, lets one fail, and looks at what each rank printed and how and when it ended.
# Open MPI refuses to start as root, which CI is, unless told twice.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
export LSAN_OPTIONS=detect_leaks=0 # MPI's own
work="$(mktemp -d)"
cd "$work" || exit 2
passed=0 failed=0 cases=0 started=$SECONDS

finish() {
  umount "$work"/disk "$work"/slices.*/disk 2>/dev/null # where a test was cut short
  if [ $failed -eq 0 ]; then rm -rf "$work"; else echo "left for a look: $work"; fi
}
trap finish EXIT

# report NAME STATUS: one line a check; 0 is ok.
report() {
  if [ "$2" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok      $1"
  else
    failed=$((failed + 1))
    echo "FAILED  $1"
  fi
}
section() { echo; echo "$1"; }

# The last line; whether all held.
all_hold() {
  echo
  echo "$passed passed, $failed failed ($((SECONDS - started)) s)"
  [ $failed -eq 0 ]
}

launch() { mpirun --oversubscribe --bind-to none "$@" </dev/null; }

# rows FILE COLUMN…: these columns of metrics.csv, by their names.
rows() {
  awk -F, -v wanted="${*:2}" 'NR == 1 { n = split(wanted, names, " "); for (i = 1; i <= NF; ++i) at[$i] = i; next }
    { for (i = 1; i <= n; ++i) printf "%s ", $at[names[i]]; print "" }' "$1"
}

# alike FILE FILE: rows that are equal, but for the rounding of sums in another order.
alike() {
  paste -d' ' "$1" "$2" | awk '{ half = NF / 2; for (i = 1; i <= half; ++i) { a = $i; b = $(i + half)
    if (a ~ /^[-0-9.]/ ? (a - b > 2e-4 * (1 + (a < 0 ? -a : a)) || b - a > 2e-4 * (1 + (a < 0 ? -a : a))) : a != b) bad = 1 } seen = 1 }
    END { exit bad || !seen }'
}

# Runs $program as each rank of a case: what it prints and how and when it ends goes to files.
one_rank() {
  "$program" "$@" >"out.$OMPI_COMM_WORLD_RANK" 2>"err.$OMPI_COMM_WORLD_RANK"
  echo "$? $EPOCHREALTIME" >"end.$OMPI_COMM_WORLD_RANK.partial"
  mv "end.$OMPI_COMM_WORLD_RANK.partial" "end.$OMPI_COMM_WORLD_RANK"
}
export -f one_rank

# ended RANK CODE PATTERN SINCE: that rank ended with the code and one line, within $timeout_s. PATTERN is what follows the name of the program.
# What Open MPI says of the memory of a process that is gone is not counted.
ended() {
  local code when
  [ -f "end.$1" ] || { echo "        rank $1 did not end"; return 1; }
  read -r code when <"end.$1"
  grep -vE '^ranks   |^   |^\[[^ ]+:[0-9]+\] Read -1, ' "err.$1" >"line.$1"
  if [ "$code" -ne "$2" ] || [ "$(wc -l <"line.$1")" -ne 1 ] || ! grep -qE "^[a-z]+: $3" "line.$1"; then
    echo "        rank $1 ended with $code and: $(cat "line.$1")"
    return 1
  fi
  awk -v a="$4" -v b="$when" 'BEGIN { print b - a }' >"lasted.$1"
  awk -v most="$timeout_s" '{ exit $1 > most }' "lasted.$1" || { echo "        rank $1 ended late, after $(cat "lasted.$1") s"; return 1; }
}

# all_ended RANK…: waits until they have, at most $timeout_s and some.
all_ended() {
  local rank tries
  for ((tries = 0; tries < 10 * timeout_s + 30; tries++)); do
    for rank in "$@"; do [ -f "end.$rank" ] || { sleep 0.1; continue 2; }; done
    return
  done
}

# in_turn: each line of the table that it reads is a case, `case_of FOLDER FIELD…`; $at_once of them run side by side.
in_turn() {
  local running=0 fields
  while IFS='|' read -ra fields; do
    cases=$((cases + 1))
    (case_of "case.$cases" "${fields[@]}") >"$(printf 'said.%03d' $cases)" &
    running=$((running + 1))
    if [ $running -ge "$at_once" ]; then wait; running=0; fi
  done
  wait
  cat said.*
  passed=$((passed + $(cat said.* | grep -c ^ok)))
  failed=$((failed + $(cat said.* | grep -c ^FAILED)))
  echo "        the last rank ended $(cat case.*/lasted.* 2>/dev/null | sort -g | tail -n 1) s after the fault; $timeout_s s are allowed"
  rm -rf said.*
  [ $failed -ne 0 ] || rm -rf case.*
}
