# Searching a folder with words, for tests/programs.sh, which reads this file: a dual encoder that learnt a few colours.

# found QUERY COLOUR: the first image in ./out for the query is of that colour.
found() { grep -q "^$1,1,[-0-9.]*,.*/$2[0-9]*\.ppm\$" out; }

# seen_on_phone PAGE PATTERN: the page in a window 360 pixels broad, as a browser says of it: pictures that are shown, parts that stand out at
# the right, scripts. It has none of its own: the one that looks is put into a copy.
seen_on_phone() {
  sed -e '/Content-Security-Policy/d' -e 's| loading="lazy"||' -e 's|</body>|<script>addEventListener("load", () => {\
    const shown = [...document.images].filter(i => i.complete \&\& i.naturalWidth > 0).length;\
    const broad = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth).length;\
    parent.postMessage(`${innerWidth}: ${shown} pictures, ${broad} too broad, ${document.scripts.length - 1} scripts`, "*");\
  });</script></body>|' "$1" >phone_inner.html
  echo '<script>onmessage = m => document.documentElement.dataset.said = m.data;</script>
    <iframe src="phone_inner.html" width="360" height="900" style="border:0"></iframe>' >phone.html
  timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/browser" \
    --virtual-time-budget=20000 --dump-dom "file://$PWD/phone.html" 2>err | sed -n 's/^<html.* data-said="\([^"]*\)".*/\1/p' >out
  grep -qE -- "$2" out
}

make_colours() {
  mkdir -p colours/images
  local colour value number
  echo image,caption,split >colours/captions.csv
  for colour in red:c0:20:20 green:20:c0:20 blue:20:20:c0 white:f0:f0:f0; do
    value="${colour#*:}" colour="${colour%%:*}"
    for number in 1 9; do picture "colours/images/$colour$number.ppm" "${value:0:2}" "${value:3:2}" "${value:6:2}"; done
    printf '%s\n' "${colour}1.ppm,a $colour picture,train" "${colour}1.ppm,all of it is $colour,train" "${colour}9.ppm,a $colour picture,val" \
      >>colours/captions.csv
  done
}

# sheet_refused NAME SHEET PATTERN FILES…: ermoe-predict ends with code 2 and one sentence that matches, and has printed nothing.
sheet_refused() {
  local name="$1" sheet="$2" pattern="$3"
  shift 3
  run predict --run colourful --query red --sheet "$sheet" "$@"
  [ $code -eq 2 ] && grep -qE -- "^ermoe-predict: --sheet $sheet: $pattern" err && [ "$(wc -l <err)" -eq 1 ] && [ ! -s out ]
  report "$name" $?
}

test_sheet_place() {
  mkdir -p mine && cp colours/images/*1.ppm mine
  sheet_refused "a sheet where a searched image is" mine/red1.ppm "is one of the files that are searched" mine/red1.ppm
  sheet_refused "or one in a searched folder" ./mine/red1.ppm "is one of the files that are searched" mine
  sheet_refused "the first of many photographs, after a slip" mine/blue1.ppm "exists and is no contact sheet" mine/[g-w]*.ppm
  sheet_refused "a sheet where a folder is" mine "is a folder" mine
  check "no photograph is lost" cmp colours/images/red1.ppm mine/red1.ppm
  check "nor another" cmp colours/images/blue1.ppm mine/blue1.ppm
  cp photos/cut.ppm broken.ppm
  cp found.html before.html
  expect "where no image can be read, the old sheet stays" 1 "no contact sheet is written: found.html stays as it was" predict --run colourful --query red broken.ppm
  check "as it was" cmp found.html before.html
  expect "and no new one is written" 1 "no contact sheet is written$" predict --run colourful --query red --sheet none.html broken.ppm
  check "anywhere" test ! -e none.html
}

test_search() {
  section "ermoe-predict --query"
  make_colours
  expect "a dual encoder learns colours" 0 "done" train --data colours --model.image_size 16 --model.patch 8 --model.width 32 --model.depth 2 \
    --model.heads 2 --moe.experts 4 --moe.hidden 32 --text.depth 2 --text.moe_layers every:2 --text.width 32 --text.heads 2 --text.context 8 --retrieval.projection 16 \
    --train.batch 4 --train.steps 120 --optim.lr 3e-3 --out colourful
  expect "a step names a block of the text tower as the log does" 0 "^step 1/1 .* \(text block 1, expert [0-9]+\)" train --data colours \
    --model.image_size 16 --model.patch 8 --model.width 32 --model.depth 2 --model.heads 2 --moe.layers none --moe.experts 32 --moe.hidden 32 \
    --text.depth 2 --text.moe_layers every:2 --text.width 32 --text.heads 2 --text.context 8 --retrieval.projection 16 --train.batch 4 \
    --train.steps 1 --train.log_every 1 --out lopsided
  mkdir -p strangers && cp colours/images/*9.ppm strangers
  expect "words find images" 0 "^query,rank,score,file" predict --run colourful --query "a red picture" --query "all of it is blue" strangers --sheet found.html
  check "the right ones" found "a red picture" red
  check "for each query" found "all of it is blue" blue
  check "a line an image and query" test "$(wc -l <out)" -eq 9
  check "and a page" grep -q '<h2><bdi>all of it is blue</bdi></h2>' found.html
  check "that forbids a network" grep -q "default-src 'none'; img-src data:" found.html
  run predict --run colourful --query "white" --top 2 --format json strangers
  check "JSON, the best ones" json "[len(q['images']) for q in d] == [2] and d[0]['images'][0]['score'] >= d[0]['images'][1]['score']" out
  long="a red picture, and then all of it is blue"
  printf '%s\n' "$long" "$long, again" "$long, and again" >words.txt
  run predict --run colourful --captions words.txt strangers
  check "captions that are cut are counted in one note" test "$(grep -c 'and 2 more are longer than the 8 tokens' err)" -eq 1 -a "$(wc -l <err)" -eq 1
  yes a | head -n 1000001 >many.txt
  expect "a million captions are the most" 2 "many.txt: holds more than 1000000 captions" predict --run colourful --captions many.txt strangers
  printf 'a red picture\n\na green picture\na blue picture\n' >words.txt
  expect "captions for images" 0 "^strangers/green9.ppm,1,[-0-9.]+,a green picture$" predict --run colourful --captions words.txt strangers
  expect "a query of many words is cut, and a note says so" 0 "longer than the 8 tokens" predict --run colourful --query "a red picture, and then all of it is blue" strangers
  cp photos/cut.ppm strangers/'<script>alert(1)<'$'\xff''.ppm'
  expect "a broken image is named" 1 "strangers/<script>alert" predict --run colourful --query red strangers
  check "and costs only itself" test "$(grep -c '^red,' out)" -eq 4
  mv strangers/red9.ppm strangers/'<script>alert(2)<'$'\xff''.ppm'
  run predict --run colourful --query '<script>"x"</script>' --query '&amp;{{title}}' strangers
  check "a name or a query is never markup" test "$(grep -c '<script' found.html)" -eq 0
  expect "an empty query" 2 "^ermoe-predict: --query is empty$" predict --run colourful --query "" strangers
  expect "a query that is no UTF-8" 2 "no UTF-8, from byte 2 on" predict --run colourful --query $'ab\xff' strangers
  expect "a query of 10,000 characters" 2 "has 10000 characters" predict --run colourful --query "$(printf 'x%.0s' {1..10000})" strangers
  expect "a classifier has nothing to compare words with" 2 "run/.*: has no text tower, so --query" predict --run run --query red strangers
  expect "a dual encoder predicts no classes" 2 "colourful/.*: is a dual encoder" predict --run colourful strangers
  expect "both directions at once" 2 "give one of them" predict --run colourful --query red --captions words.txt strangers
  expect "a sheet of nothing" 2 "no --query is given" predict --run run --sheet x.html strangers
  expect "captions that are not there" 2 "nowhere.txt" predict --run colourful --captions nowhere.txt strangers
  test_sheet_place
  browser="$(command -v chromium || command -v chromium-browser || command -v google-chrome)"
  if [ -z "$browser" ]; then
    skip "the contact sheet in a browser: there is no chromium here"
    return
  fi
  check "the sheet on a phone" seen_on_phone found.html '^360: 8 pictures, 0 too broad, 0 scripts'
  sed 's/max-width: 86rem/min-width: 400px/' found.html >broad_sheet.html
  check "a page too broad is seen" seen_on_phone broad_sheet.html '^360: 8 pictures, [1-9][0-9]* too broad'
}
