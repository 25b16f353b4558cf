#!/usr/bin/env bash
# Installs what building, testing and the demo need, from the system's own packages (Debian 12, Ubuntu 24.04 or newer).
#   third_party/install.sh           what is missing to build and test
#   third_party/install.sh --demo    also the demo's data set
#   third_party/install.sh --golden  also what makes the golden files (PyTorch, regex) and reads NIfTI beside us (nibabel), used by CI
#   third_party/install.sh --sentencepiece  also what reads SentencePiece models; configure again behind it
#   third_party/install.sh --checks  also what CI checks with: formatting, sizes, and a browser for the page of ermoe-report (Debian's name)
# As root it installs; otherwise it prints the command that would.
set -euo pipefail

packages=(build-essential cmake ninja-build libopenblas-openmp-dev nlohmann-json3-dev libcli11-dev
          libfmt-dev zlib1g-dev libjpeg-dev libpng-dev libstb-dev libutf8proc-dev libgtest-dev libopenmpi-dev openmpi-bin)
for option in "$@"; do
  case "$option" in
    --demo) packages+=(dataset-fashion-mnist) ;;
    --golden) packages+=(python3-torch python3-numpy python3-nibabel python3-regex libsentencepiece-dev python3-sentencepiece) ;;
    --sentencepiece) packages+=(libsentencepiece-dev) ;;
    --checks) packages+=(clang-format universal-ctags chromium) ;;
    *) echo "install.sh: $option is not an option; --demo, --golden, --sentencepiece and --checks are" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "These packages are missing. Install them, then start again:" >&2
  echo "  sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
