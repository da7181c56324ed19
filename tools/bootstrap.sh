#!/usr/bin/env bash
# Make the pinned environment: tools/bootstrap.sh VENV READY [PYTHON]. Called by the Makefile.
#
# READY is touched when the environment is complete, and is named after the folder that it was made
# for: an environment that was never finished, or that came here with a moved folder, is made anew.
# TORCH=cpu takes torch from PyTorch's own index of CPU builds.
set -euo pipefail
venv=$1
ready=$2
candidates=(python3.11 python3.12 python3.13 python3)
[ -z "${3:-}" ] || candidates=("$3")
torch=${TORCH:-}

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# The first candidate that requirements.txt is resolved for (see tools/lock.py).
find_python() {
  local candidate
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11, 2) <= sys.version_info[:3] < (3, 14))' \
      >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  for candidate in "${candidates[@]}"; do
    echo "$candidate: $("$candidate" --version 2>&1 || true)" >&2
  done
  fail "The book needs Python 3.11.2 to 3.13, and none of these is one." \
    "Debian 12 and 13 and Ubuntu 24.04 have it: apt install python3 python3-venv, as root." \
    "To name another Python: make book PYTHON=/path/to/python3.12"
}

# A pip command without its remarks on folders that its configuration names and that do not exist.
quietly() {
  local noise="^WARNING: Location '.*' is ignored: it is neither a file nor a directory"
  "$@" 2>&1 | { grep -v "$noise" || true; } >&2
}

make_environment() {
  local said
  rm -rf "$venv"
  echo "Making $venv with $("$python" --version)"
  if said=$("$python" -m venv "$venv" 2>&1); then
    return
  fi
  # Debian splits ensurepip out of python3; the system's pip can then fill the environment.
  rm -rf "$venv"
  if "$python" -m pip --version >/dev/null 2>&1 && "$python" -m venv --without-pip "$venv"; then
    quietly "$python" -m pip --quiet --python "$venv/bin/python" install pip && return
  fi
  rm -rf "$venv"
  fail "$said" "$python cannot make a virtual environment (its reason is above)." \
    "On Debian and Ubuntu: apt install python3-venv, as root; then the same command again."
}

case $torch in
  "") index=() ;;
  cpu) index=(--extra-index-url https://download.pytorch.org/whl/cpu) ;;
  *) fail "TORCH is '$torch': give TORCH=cpu for the build without CUDA, or leave it out." ;;
esac

python=$(find_python)
if ! { [ -e "$ready" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
  make_environment
fi
install=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install)
echo "Installing the pinned packages (some minutes the first time)"
quietly "${install[@]}" "${index[@]}" -r requirements.txt ||
  fail "The pinned packages were not installed (pip's reason is above). They need a network and" \
    "6 GB of disk, or 2 GB without CUDA (TORCH=cpu). Then the same command again."
# setuptools warns about every editable installation.
PYTHONWARNINGS=ignore quietly "${install[@]}" --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m pip --disable-pip-version-check check
touch "$ready"
