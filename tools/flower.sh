#!/usr/bin/env bash
# Test fldp/flower where Flower is: tools/flower.sh FOLDER PYTHON [deploy]. Called by the Makefile.
# With `deploy` it is the example of a deployment that runs, not the tests.
#
# Flower holds back packages that the book pins, so it has an environment of its own, without Ray.
# PIP_FIND_LINKS=folder takes wheels from a disk, TORCH=cpu a torch without CUDA.
set -euo pipefail
folder=$1
made_with=$2
# Flower 1.42 finds no tables for a SuperLink's database where its path has one of these.
if [[ "$PWD/$folder" == *[\ ,%]* ]]; then
  folder="${XDG_CACHE_HOME:-$HOME/.cache}/fldp-flower-$(pwd | cksum | cut -d " " -f 1)"
  echo "The environment is $folder, as Flower wants a path without space, comma and percent sign"
  mkdir -p "$(dirname "$folder")"
fi
python="$folder/bin/python"
# An environment knows its own path: in a moved folder it is made anew.
place="$folder/.place-$(pwd | cksum | cut -d " " -f 1)"
# The book's torch: the numbers that both environments compute are compared.
mapfile -t pins < <(grep -E "^(torch|torchvision|numpy)==" requirements.txt)
# Changes with what is asked for.
asked=$(printf "%s\n" "${pins[@]}" | cat pyproject.toml tools/flower.sh - | cksum | cut -d " " -f 1)
ready="$folder/.ready-$asked"

if [ ! -e "$place" ] || [ ! -e "$ready" ]; then
  if [ ! -e "$place" ]; then
    rm -rf "$folder"
    "$made_with" -m venv "$folder"
    touch "$place"
  fi
  # What was asked for before is no longer there.
  rm -f "$folder"/.ready-*
  index=()
  [ "${TORCH:-}" != cpu ] || index=(--extra-index-url https://download.pytorch.org/whl/cpu)
  echo "Installing fldp[flower] into $folder (some minutes the first time)"
  "$python" -m pip --quiet --disable-pip-version-check install "${index[@]}" "${pins[@]}" \
    --editable ".[flower]" "pytest>=8" "hypothesis>=6.100"
  touch "$ready"
fi
if [ "${3:-}" = deploy ]; then
  exec "$python" examples/flower/deploy.py
fi
"$python" -m pip --disable-pip-version-check check
"$python" -m pytest tests/flower fldp/flower --doctest-modules -p no:cacheprovider
