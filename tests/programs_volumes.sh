# What a user does with brains, for tests/programs.sh, which reads this file.

# study FOLDER [FAULT]: a few made brains; with something wrong about subject s3.
study() { python3 "$tests/make_study.py" "$@"; }

test_volumes() {
  section "volumes"
  local fault pattern
  local brains=(--data.volumes "t1/{participant_id}.nii.gz" --model.dimensions 3 --loss.kind l1 --data.spacing 4 --model.patch 4
    --model.width 16 --model.depth 2 --model.heads 2 --model.pool average --moe.experts 2 --moe.top_k 1 --moe.hidden 16
    --train.batch 3 --train.steps 2 --threads 1)
  local regional=(--moe.regions "0:1;1:2" --moe.free_experts 1 --data.regions "regions/{participant_id}_regions.nii.gz")
  study brains
  expect "brains train" 0 "6 training .* and 2 evaluation volumes, 12x12x12 voxels of 4 mm" train --data brains "${brains[@]}" --out aged
  check "predictions.csv has those held out" test "$(wc -l <aged/predictions.csv)" -eq 3
  expect "with regional experts" 0 "^done " train --data brains "${brains[@]}" "${regional[@]}" --out regional
  expect "they are evaluated" 0 "^MAE " evaluate --run aged
  check "and nothing is said of classes" test "$(grep -c "class" out)" -eq 0
  expect "one is predicted" 0 "^brains/t1/s1.nii.gz,[0-9.]+,[0-9.]+,1,.*block 1" predict --run aged brains/t1/s1.nii.gz
  tar cf brains.tar -C brains . && expect "from a tar" 0 "^done " train --data brains.tar "${brains[@]}" --out packed
  check "to the same digits" cmp -s aged/predictions.csv packed/predictions.csv
  run train --data brains "${brains[@]}" --optim.ema 0.5 --out averaged
  mkdir away && mv brains/t1 away
  expect "averaged weights predict without the data that they were trained on" 0 "^away/t1/s1.nii.gz,[0-9.]+" predict --run averaged away/t1/s1.nii.gz
  check "and with their own statistics" test "$(cat out err | grep -c "note:")" -eq 0
  expect "a checkpoint is named as the program prints it" 0 "^away/t1/s1" predict --run averaged/checkpoints/best away/t1/s1.nii.gz
  mv away/t1 brains
  while IFS='|' read -r fault pattern; do
    study "$fault" "$fault"
    refused "$fault: refused, and the subject named" "$pattern" --data "$fault" "${brains[@]}" "${regional[@]}"
  done <<'EOF'
nan|subject s3: nan/t1/s3.nii.gz: .*not finite
flat|subject s3: flat/t1/s3.nii.gz: every voxel has the same value
series|subject s3: series/t1/s3.nii.gz: .*(frames|series|volumes)
cut|subject s3: cut/t1/s3.nii.gz: 
grid|subject s3: grid/regions/s3_regions.nii.gz does not lie on the grid of grid/t1/s3.nii.gz
vague|subject s3: vague/regions/s3_regions.nii.gz: holds 0.5, which is no label
old|line 5: the age 430 of subject s3 is not from 0 to 120 years
unborn|line 5: the age -3 of subject s3 is not from 0
wordy|line 5: the age "young" of subject s3 is no number of years
leak|line 10: subject s3 is in val, and in train in line 5: a model would be tested on someone whom it was trained on
lost|line 5: subject s3 has no volume "t1/s3.nii.gz"
EOF
  study ageless ageless
  expect "who has no age is left out, and named" 0 "1 of 8 subjects have no age and are left out, the first is s3" \
    train --data ageless "${brains[@]}" --out seven
  study skull skull
  expect "a skull is warned of" 0 "1 of 8 volumes look as if skull and skin were still in them, of s3;" \
    train --data skull "${brains[@]}" --out skulls
  expect "data.max_bad lets some go" 0 "5 training .* and 2 evaluation" \
    train --data cut "${brains[@]}" --model.volume 12,12,12 --data.max_bad 0.2 --out fewer
  check "and names them" grep -q "note: subject s3: cut/t1/s3.nii.gz" out
}

test_looks() {
  section "ermoe-eval --looks"
  study study ageing 16
  study other_study ageing 6
  local volumes=(--data study --model.dimensions 3 --loss.kind l1 --data.spacing 8 --data.normalize none --model.volume 12,20,16
    --model.patch 4 --model.pool average --model.center_input --model.width 32 --model.depth 2 --model.heads 2 --moe.experts 3
    --moe.hidden 16 --train.batch 4 --train.log_every 100 --data.regions 'regions/{participant_id}.nii.gz')
  expect "a model of volumes trains" 0 "done .*mean error" train "${volumes[@]}" --train.epochs 100 --data.val_share 0.5 --out looker
  expect "the planted region carries the age" 0 "planted regions: 37.5 % of the volume; .* % of the attribution, ratio (1.[2-9]|[2-9]).*of the slope, ratio (1.[5-9]|[2-9])" \
    evaluate --run looker --looks seen --region-names labels.tsv --permutations 99
  check "a line for each expert and region" test "$(wc -l <seen/experts.csv)" -eq $((1 + 3 * 3))
  local part whole=0
  for part in occlusion.csv occlusion.nii.gz occlusion_change.nii.gz occlusion_slope.nii.gz occlusion.png occlusion_slope.png block1.png maps/block1_expert{0,1,2}.nii.gz; do
    [ -s "seen/$part" ] || whole=1
  done
  report "tables, maps and pictures are there" $whole
  expect "the maps are sound volumes" 0 "volume" inspect seen/occlusion.nii.gz
  run evaluate --run looker --looks seen_again --region-names labels.tsv --permutations 99
  check "the same again, byte for byte" diff -r seen seen_again
  run evaluate --run looker --looks bare --json --permutations 9
  check "--json" json "d['subjects'] == 8 and len(d['regions']) == 2 and d['planted'] is None and d['blocks'][0]['information']['p'] > 0" out
  run train "${volumes[@]}" --train.epochs 2 --data.folds 2 --out folds
  expect "a cross-validation: everyone by the model that never saw them" 0 "^16 subjects, seen by the 2 models" \
    evaluate --run folds --looks by_folds --permutations 9
  check "experts are told apart by fold" test -s by_folds/fold-2/maps/block1_expert2.nii.gz -a "$(wc -l <by_folds/experts.csv)" -eq 19
  run train "${volumes[@]}" --moe.regions '0:1;1:2' --moe.experts 2 --moe.free_experts 1 --train.epochs 1 --data.val_share 0.5 --out masked
  expect "experts that a mask keeps to regions are no finding" 0 "no finding" evaluate --run masked --looks masks --permutations 9
  check "and are marked" test "$(grep -c ',by mask,' masks/experts.csv)" -eq 6
  expect "other regions than those of the mask" 2 "--regions: experts of masked" \
    evaluate --run masked --looks nothing --regions 'other/{participant_id}.nii.gz'
  expect "regions that are not there name the subject" 2 "subject sub-" \
    evaluate --run looker --looks nothing --regions 'other/{participant_id}.nii.gz'
  expect "a model of images does not look" 2 "--looks is for models that predict a number" evaluate --run run --looks nothing
  expect "--regions alone" 2 "--regions requires --looks" evaluate --run looker --regions x
  expect "a file in the folder's place" 2 "is there and is no folder" evaluate --run looker --looks study/labels.tsv
  expect "other data than the run's: all of it" 0 "^6 subjects" evaluate --run folds/fold-1 --data other_study --looks others --permutations 9
  expect "a cross-validation looks at those held out alone" 2 "give one model" evaluate --run folds --looks nothing --split train
  expect "and its report is of them alone" 2 "folds is a cross-validation" evaluate --run folds --data other_study
  expect "one of its models takes other data, all of it" 0 "^6 volumes" evaluate --run folds/fold-1 --data other_study
  check "and corrects nothing by who is judged" grep -q "no bias correction" out
  check "what is refused leaves no folder" test ! -e nothing
}

test_study_inspection() {
  section "ermoe-data inspect of studies"
  expect "subjects, ages and volumes" 0 "8 subjects with an age and a volume: 6 for training, 2 held out" \
    inspect brains.tar --volumes "t1/{participant_id}.nii.gz"
  check "the volumes' grid" grep -q "12 x 12 x 12 voxels of 4 x 4 x 4 mm, axes RAS: 8" out
  expect "it is proposed where volumes may lie" 2 'template such as "regions/{participant_id}_regions.nii.gz" or "t1/{participant_id}.nii.gz"' \
    inspect brains
  expect "a BIDS folder wants no more" 0 "16 subjects" inspect study
  expect "a volume of no use" 2 "1 of 8 volumes looked at are of no use; for example s3: .*not finite" \
    inspect nan --volumes "t1/{participant_id}.nii.gz"
}

test_brain_tools() {
  section "ermoe-data phantom and align"
  study colin template
  local made=(--template colin/brain.nii.gz --atlas colin/atlas.nii.gz --spacing 6 --threads 1)
  expect "made-up subjects" 0 "^4 simulated subjects in made; .* errs by [0-9.]+ years" \
    "$bin/ermoe-data" phantom made --subjects 4 "${made[@]}"
  check "in a folder as BIDS has it" test -s made/sub-0003/anat/sub-0003_T1w.nii.gz -a -s made/phantom.json -a "$(wc -l <made/participants.tsv)" -eq 5
  expect "which is left alone when it is whole" 2 "made: holds these subjects already" "$bin/ermoe-data" phantom made --subjects 4 "${made[@]}"
  expect "ages from end to beginning" 2 "--ages" "$bin/ermoe-data" phantom other --subjects 4 --ages 80:20 "${made[@]}"
  expect "a choice of regions" 0 "^2 simulated subjects in chosen" \
    "$bin/ermoe-data" phantom chosen --subjects 2 --plant 'left_hippocampus:37:-0.005;ventricles:0.01' "${made[@]}"
  check "whose labels say so" grep -q "^1.left_hippocampus.1$" chosen/derivatives/regions/labels.tsv
  expect "a region that does not exist" 2 "--plant: brainstem: no region of the map has that name" \
    "$bin/ermoe-data" phantom other --subjects 2 --plant 'brainstem:0.01' "${made[@]}"
  tar cf made.tar made
  expect "they are aligned, out of an archive" 0 "^2 volumes in aligned" "$bin/ermoe-data" align \
    'made.tar:*sub-0001_T1w.nii.gz' 'made.tar:*sub-0002_T1w.nii.gz' --to colin/brain.nii.gz --model rigid --labels 'made.tar:*sub-0001_reg*' \
    'made.tar:*sub-0002_reg*' --table made.tar:made/participants.tsv --out aligned
  check "with the table beside them" cmp made/participants.tsv aligned/participants.tsv
  check "with volume, map, matrix and picture" test -s aligned/sub-0001_T1w_aligned.nii.gz -a -s aligned/sub-0002_regions_aligned.nii.gz \
    -a -s aligned/sub-0001_T1w_aligned.json -a -s aligned/sub-0001_T1w_aligned.png
  expect "a map of another grid is refused" 2 "lies on another grid than made.tar:" \
    "$bin/ermoe-data" align 'made.tar:*sub-0001_T1w*' --to colin/brain.nii.gz --labels colin/atlas.nii.gz --out refused
  expect "an archive without volumes" 2 "holds no .nii or .nii.gz files that match" \
    "$bin/ermoe-data" align 'made.tar:nothing*' --to colin/brain.nii.gz --out refused
}
