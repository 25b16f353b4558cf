#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that this machine can run.
#   ./test.sh              Release build
#   ./test.sh --preset asan  under the address and undefined-behaviour sanitizers
# ERMOE_WERROR=ON: warnings are errors, as for who works on the engine; another compiler may know more of them.
# Real data for some tests: ERMOE_TEST_DATA=FOLDER (they skip without it).
set -euo pipefail
cd "$(dirname "$0")"
preset=cpu
case "${1:-}" in
  "") ;;
  --preset) preset="${2:?--preset wants cpu, asan or cuda}" ;;
  *) echo "test.sh: $1 is not an option; --preset NAME is" >&2; exit 2 ;;
esac

third_party/install.sh
cmake --preset "$preset" ${ERMOE_WERROR:+-DERMOE_WERROR="$ERMOE_WERROR"} >"/tmp/ermoe-configure.$$" || { cat "/tmp/ermoe-configure.$$"; exit 1; }
sed -n '/ERMoE/,/compiler cache/p' "/tmp/ermoe-configure.$$"
rm -f "/tmp/ermoe-configure.$$"
cmake --build "build/$preset" -j "$(nproc)"
if [ -z "${ERMOE_FASHION_MNIST:-}" ] && [ -d /usr/share/datasets/fashion-mnist ]; then
  export ERMOE_FASHION_MNIST=/usr/share/datasets/fashion-mnist
fi
[ -n "${ERMOE_TEST_DATA:-}" ] || echo "ERMOE_TEST_DATA is not set: tests on real and hostile files will skip"
ctest --test-dir "build/$preset" --output-on-failure --no-tests=error
