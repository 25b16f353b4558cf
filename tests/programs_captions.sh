# Images with captions, for tests/programs.sh, which reads this file.

test_captions() {
  section "images with captions"
  mkdir -p captioned/images
  picture captioned/images/red.ppm c0 20 20 && picture captioned/images/green.ppm 20 c0 20 && picture captioned/images/blue.ppm 20 20 c0
  printf '%s\n' image,caption,split 'red.ppm,"A red, flat square",train' red.ppm,Red,train 'green.ppm,A green one, too,train' blue.ppm,Blue,val \
    >captioned/captions.csv
  expect "a table of captions" 0 "^  training +2 images, 3 captions; an image has 1 to 2, mean 1.5" inspect captioned
  expect "its evaluation" 0 "^  evaluation +1 images, 1 captions" inspect captioned
  expect "its first captions" 0 "^    A red, flat square$" inspect captioned
  expect "its images" 0 "20.0 x 16.0 pixels on average, .* 3 of 3 looked at" inspect captioned --decode
  tar cf captioned.tar -C captioned . && expect "from a tar" 0 "^  training +2 images, 3 captions" inspect captioned.tar
  expect "the table by its name" 0 "^  training +2 images, 3 captions" inspect captioned/captions.csv
  echo '[{"filename": "red.ppm", "captions": ["one"]}, {"filename": "blue.ppm", "captions": ["", "two"]}]' >captioned/captions.json
  expect "JSON goes before a table, and a note says so" 0 "captions.json; captioned/captions.csv is left alone" inspect captioned
  expect "an empty caption is told" 0 "1 captions are empty and are left out; for example captioned/captions.json, image 2" inspect captioned
  expect "an image without one is told" 0 "1 images have no caption and are left out; for example captioned/images/green.ppm" inspect captioned
  echo '[{"filename": "red.ppm", "captions": ["one"]}, {"filename": "lost.ppm", "captions": ["two"]}]' >captioned/captions.json
  expect "a missing image is refused" 2 "1 of 2 images that have captions are missing.*captions.json, image 2: \"lost.ppm\"" inspect captioned
  echo '[{"filename": "../../etc/passwd", "captions": ["one"]}]' >captioned/captions.json
  expect "a path that leaves the folder is refused" 2 "image 1: the image \"../../etc/passwd\" lies outside of captioned" inspect captioned
  echo '[{"filename": "red.ppm", "captions": ["on' >captioned/captions.json
  expect "JSON that is cut off is refused" 2 "captions.json: line [0-9]+, column [0-9]+ is not JSON" inspect captioned
  rm captioned/captions.json && head -c 300 captioned/images/red.ppm >captioned/images/green.ppm
  expect "a broken image is refused" 2 "1 of 3 images looked at are broken; for example captioned/images/green.ppm" inspect captioned --decode
  local photographs="${ERMOE_TEST_DATA:-}/flickr8k_900.tar"
  if [ -e "$photographs" ]; then
    expect "photographs" 0 "^  training +800 images, 4000 captions; an image has 5 to 5, mean 5.0" inspect "$photographs"
  else
    skip "ERMOE_TEST_DATA is not set or holds no flickr8k_900.tar"
  fi
}
