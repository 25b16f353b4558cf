# The report's page, for tests/programs.sh, which reads this file: made of tiny runs, and tried out in a browser without a screen.

report_of() { "$bin/ermoe-report" "$@"; }

# tried PAGE PATTERN: a browser opens the page from its file, lets it move every slider and press every button in both themes
# (tools/report/selftest.js), and what it says of that matches. Faults of the console and wishes for a network count.
tried() {
  local said
  said="$(timeout 180 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/browser" \
    --virtual-time-budget=600000 --window-size=1200,1000 --dump-dom "file://$work/$1#selftest" 2>browser.log |
    sed -n 's/^<html.* data-selftest="\([^"]*\)".*/\1/p' | head -1)"
  echo "${said:-the page said nothing}" >out
  tail -3 browser.log >err
  grep -qE -- "$2" out
}

# broken PAGE NAME SED_EXPRESSION: a copy of the page with a fault in it.
broken() {
  sed "$3" "$1" >"$2"
  ! cmp -s "$1" "$2"
}

test_report_pages() {
  section "ermoe-report"
  run train "${tiny[@]}" --train.steps 16 --train.eval_every 4 --moe.layers every:1 --out reported
  run train "${tiny[@]}" --train.steps 16 --train.eval_every 8 --moe.router switch_lbl --moe.expert plain --out rival
  run train "${tiny[@]}" --data "synthetic:size=16,count=256,classes=45" --moe.experts 34 --moe.basis leading --moe.hidden 16 --train.steps 4 --out crowded
  run train "${tiny[@]}" --train.steps 8 --moe.layers none --out without_experts
  expect "a run" 0 "^report +reported/report.html" report_of reported
  check "asks nothing of a network" test "$(grep -cE '(src|href|action)="?(http|//)|@import|fetch\(|XMLHttpRequest|url\(' reported/report.html)" -eq 0
  check "and forbids it" grep -q "default-src 'none'; img-src data:" reported/report.html
  expect "several, with few pictures" 0 "^report +both.html" report_of reported rival without_experts --images 3 --out both.html
  expect "more experts and classes than a page has room for" 0 "^report" report_of crowded
  expect "the same page again" 0 "^report" report_of reported rival without_experts --images 3 --out again.html
  check "byte for byte" cmp both.html again.html
  expect "other data" 0 "^report" report_of reported --data "synthetic:size=16,count=128,classes=4" --out other.html
  expect "a data set that is not there is left out, and the user told" 0 "the data cannot be read" report_of reported --data nowhere --out bare.html
  check "and so is the reader" grep -q '"notes":\["The data cannot be read here' bare.html
  expect "a dual encoder" 0 "^report +colourful/report.html" report_of colourful
  check "its recalls" grep -q '"recall":{"captions":4,"to_text":{"recall_1":1.0,' colourful/report.html
  expect "beside a classifier" 0 "^report +both_kinds.html" report_of colourful reported --out both_kinds.html
  expect "volumes" 0 "^report +aged/report.html" report_of aged
  expect "a cross-validation: its folds beside each other" 0 "^report +folds/report.html" report_of folds
  check "by their last weights" test "$(grep -oE '"checkpoint":"folds/fold-[12]/checkpoints/[a-z0-9-]+"' folds/report.html | grep -c "$(cat folds/fold-1/checkpoints/latest)")" -eq 2
  expect "a folder that is no run" 2 "config.json" report_of "$work" --out nothing.html
  expect "a folder that is not there" 2 "nowhere: there is no such folder" report_of nowhere --out nothing.html
  cp -r reported damaged_run && printf 'no row\n' >>damaged_run/metrics.jsonl
  expect "a damaged log" 2 "damaged_run/metrics.jsonl, line [0-9]+: " report_of damaged_run --out nothing.html
  check "what is refused leaves no page" test ! -e nothing.html
  browser="$(command -v chromium || command -v chromium-browser || command -v google-chrome)"
  if [ -z "$browser" ]; then
    skip "the pages in a browser: there is no chromium here"
    return
  fi
  check "one run in a browser: every slider, both themes, no fault" tried reported/report.html '^ok: [0-9]{2,} controls, 10 sections'
  check "several" tried both.html '^ok: [0-9]{2,} controls'
  check "many experts and classes" tried crowded/report.html '^ok: '
  check "without data" tried bare.html '^ok: '
  check "a cross-validation" tried folds/report.html '^ok: '
  check "a dual encoder in a browser" tried colourful/report.html '^ok: [0-9]+ controls, 7 sections'
  check "beside a classifier" tried both_kinds.html '^ok: '
  check "volumes" tried aged/report.html '^ok: '
  # The test itself: it must see what it is there to see.
  broken both.html wild.html 's/^const num = .*//; s/^function num(v) {/function num(v) { if (v === 3) throw new Error("wild");/'
  check "an error is seen" tried wild.html '^failed: .*wild'
  broken both.html stuck.html 's/state\[key\] = Number(input.value);//'
  check "a slider that does nothing is seen" tried stuck.html '^failed: .*(does not move|nothing follows)'
  broken both.html asking.html 's|^start();|start(); new Image().src = "http://localhost/x.png";|'
  check "a request is seen" tried asking.html '^failed: .*request: img-src'
  broken both.html broad.html 's/min-width: 0;/min-width: 400px;/'
  check "a page too broad for a phone is seen" tried broad.html '^failed: .*pixels beyond a page of 360'
  broken both.html spoilt.html 's/const px = v => left/const px = v => NaN * left/'
  check "a chart of nonsense is seen" tried spoilt.html '^failed: .*NaN'
}
