# Training images and captions to find each other, for tests/programs.sh, which reads this file.

# made_pairs FOLDER: 24 plain pictures to train on and 8 to evaluate on, with two captions each that tell their colour.
made_pairs() {
  local number name part
  local colours=("c0 20 20 red" "20 c0 20 green" "20 20 c0 blue" "c0 c0 20 yellow" "c0 c0 c0 white" "10 10 10 black" "c0 20 c0 pink" "20 c0 c0 cyan")
  mkdir -p "$1/images"
  echo "image,caption,split" >"$1/captions.csv"
  for ((number = 0; number < 32; number++)); do
    read -r -a colour <<<"${colours[$((number % 8))]}"
    part=train name="$number.ppm"
    [ $number -ge 24 ] && part=val
    picture "$1/images/$name" "${colour[@]:0:3}"
    printf '%s,"A %s, flat picture, number %d.",%s\n%s,All of it is %s,%s\n' "$name" "${colour[3]}" $number $part "$name" "${colour[3]}" $part \
      >>"$1/captions.csv"
  done
}

pair_settings=(--model.image_size 16 --model.patch 4 --model.width 32 --model.depth 2 --model.heads 2 --moe.experts 4 --moe.hidden 32
  --text.depth 2 --text.width 32 --text.heads 2 --text.context 16 --text.vocabulary 600 --text.moe_layers last:1 --retrieval.projection 16
  --train.batch 8 --train.log_every 1 --optim.warmup_steps 1 --optim.lr 3e-3)
# Everything random is on.
lively_pairs=(--data pairs "${pair_settings[@]}" --augment.flip --augment.resized_crop --augment.randaugment_n 1 --model.dropout 0.1
  --optim.ema 0.9 --train.accumulate 2 --train.batch 16 --train.eval_every 40 --checkpoint.every 3)

# refused_pairs NAME PATTERN FOLDER FLAGS…: as `refused`, on other data.
refused_pairs() {
  local name="$1" pattern="$2" folder="$3"
  shift 3
  refused "$name" "$pattern" --data "$folder" "${pair_settings[@]}" --train.steps 2 "$@"
}

test_retrieval() {
  section "images and captions that find each other"
  made_pairs pairs
  run train --data pairs "${pair_settings[@]}" --train.steps 60 --train.eval_every 30 --out found
  report "a run" $code
  check "what was learnt is far above chance" json "d[-1]['t2i_r1'] >= 30 and d[-1]['i2t_r1'] >= 30 and d[-1]['rsum'] > 300" <(grep '"eval"' found/metrics.jsonl | tail -1 | sed 's/.*/[&]/')
  check "its best checkpoint is the one of the highest rsum" json "d['has_best'] and d['best'] > 300" found/checkpoints/"$(cat found/checkpoints/best)"/state.json
  check "both towers are told" grep -qE "^experts +text tower, blocks 1: 4 scored" out
  expect "a recall table" 0 "^text to image +[0-9.]+ % +[0-9.]+ % +[0-9.]+ %" evaluate --run found --predictions found.csv --shuffle
  check "what each caption finds" test "$(wc -l <found.csv)" -eq 17
  expect "routing of the text tower" 0 "^ *text 1 +0\.[0-9]+" evaluate --run found
  run evaluate --run found --split val --json
  check "the same as JSON" json "d['images'] == 8 and d['captions'] == 16 and d['rsum'] > 300 and d['routing'][1]['tower'] == 'text'" out
  expect "on the training part" 0 "24 images, 48 captions" evaluate --run found --split train
  cp -r "found/checkpoints/$(cat found/checkpoints/best)" pairs_alone && mkdir pairs_away && mv found pairs_away/found
  expect "a checkpoint's folder is all that is needed" 0 "^rsum +[3-6]" evaluate --run pairs_alone
  mv pairs_away/found found
  inspect found/checkpoints/latest >/dev/null 2>&1
  run inspect "$(checkpoint found)"
  report "the checkpoint is whole" $code
  cp -r pairs_alone pairs_cut && sed -i '$d' pairs_cut/merges.txt
  expect "a tokenizer that was damaged is told" 2 "merges.txt: is damaged" evaluate --run pairs_cut
  rm pairs_cut/merges.txt
  expect "one that is gone, too" 2 "merges.txt: " evaluate --run pairs_cut
  expect "a program for classes says so" 2 "^ermoe-compress: .*is a dual encoder" compress --run found --prune 0.5 --out pruned
  cp -r pairs pairs_others && sed -i 's/picture/painting of something else/' pairs_others/captions.csv
  run train --data pairs_others "${pair_settings[@]}" --train.steps 2 --out pairs_begun --init found
  check "a run starts from the weights of another" grep -qE "^step 1/2 \| loss [01]\." out
  check "and has its tokenizer" cmp -s pairs_begun/tokenizer/merges.txt found/tokenizer/merges.txt
}

test_retrieval_kills() {
  section "images and captions: SIGKILL"
  local i process bad=0
  run train "${lively_pairs[@]}" --train.steps 60 --out pairs_spared
  report "a run with everything random on" $code
  for i in 1 2; do
    if [ "$i" -eq 1 ]; then
      "$bin/ermoe-train" "${lively_pairs[@]}" --train.steps 60 --out pairs_killed >out 2>err &
    else
      "$bin/ermoe-train" --resume pairs_killed >out 2>err &
    fi
    process=$!
    wait_for $process 60 test -e pairs_killed/checkpoints/latest || bad=1
    wait_for $process 60 rows_reach pairs_killed $(($(rows pairs_killed) + 1)) || bad=1
    kill -KILL $process 2>/dev/null
    wait $process 2>/dev/null
  done
  run train --resume pairs_killed
  [ $bad -eq 0 ] && [ $code -eq 0 ] && same_files pairs_killed/checkpoints/step-60 pairs_spared/checkpoints/step-60 &&
    cmp -s pairs_killed/checkpoints/step-60/merges.txt pairs_spared/checkpoints/step-60/merges.txt
  report "killed twice and resumed, it ends with the bits of a run never killed" $?
  expect "another size of vocabulary is refused" 2 "text.vocabulary is 599, but the tokenizer of .* has [0-9]+ tokens" train \
    --resume pairs_killed --text.vocabulary 599 --train.steps 61
  expect "another tokenizer is refused" 2 "text.tokenizer: a resumed run keeps its own, which lies in pairs_killed/" train \
    --resume pairs_killed --text.tokenizer found/tokenizer --train.steps 61
}

test_retrieval_refusals() {
  section "images and captions that cannot be used"
  cp -r pairs pairs_odd && printf 'lost.ppm,A picture that is not there,train\n' >>pairs_odd/captions.csv
  refused_pairs "a caption for a missing image" "1 of 33 images that have captions are missing.*lost.ppm" pairs_odd
  cp pairs/captions.csv pairs_odd/captions.csv && picture pairs_odd/images/bare.ppm 80 80 80
  expect "an image without a caption is left out" 0 "1 images have no caption and are left out; for example pairs_odd/images/bare.ppm" train \
    --data pairs_odd "${pair_settings[@]}" --train.steps 2 --out pairs_odd_1
  { cat pairs/captions.csv; echo '3.ppm,"",train'; printf '4.ppm,%s,train\n' "$(head -c 10000 /dev/zero | tr '\0' x)"; printf '5.ppm,caf\xe9,train\n'; } >pairs_odd/captions.csv
  run train --data pairs_odd "${pair_settings[@]}" --train.steps 2 --out pairs_odd_2
  grep -q "1 captions are empty" out err && grep -qE "1 captions .*10,?000 characters" out err && grep -qE "1 captions .*UTF-8" out err
  report "captions that are empty, of 10,000 characters or no UTF-8 are named" $((code + $?))
  printf 'image,caption,split\n0.ppm,"",train\n' >pairs_odd/captions.csv
  refused_pairs "captions that are all empty" "there is no image with a caption in it" pairs_odd
  refused_pairs "a vocabulary that cannot be learnt" "text.vocabulary: .*514 tokens at least.*not 100" pairs --text.vocabulary 100
  refused_pairs "a vocabulary of another size than the tokenizer's" "text.vocabulary is 999, but the tokenizer found/tokenizer has [0-9]+ tokens" \
    pairs --text.tokenizer found/tokenizer --text.vocabulary 999
  mkdir pairs_broken && cp found/tokenizer/vocab.json pairs_broken && echo '#version' >pairs_broken/merges.txt
  refused_pairs "a tokenizer that does not hang together" "pairs_broken/" pairs --text.tokenizer pairs_broken --text.vocabulary 0
  refused_pairs "a tokenizer that is not there" "nowhere" pairs --text.tokenizer nowhere --text.vocabulary 0
  refused_pairs "a part that is not there" "the part test is to evaluate" pairs --data.part test
  refused_pairs "settings of classes" "loss.smoothing: captions know no classes" pairs --loss.smoothing 0.1
  refused "settings of texts without a text tower" "text.moe_layers: there is no text tower" "${tiny[@]}" --text.moe_layers 0
  refused "captions where there are none" "synthetic images have no captions" --data "$data" "${pair_settings[@]}"
  expect "a part that is asked for and not there" 2 "the part test is to evaluate" evaluate --run found --split test
  expect "a picture of numbers" 2 "--scatter draws numbers" evaluate --run found --scatter found.png
}
