#!/usr/bin/env bash
# Make the pinned environment: tools/bootstrap.sh PYTHON VENV. Called by the Makefile.
set -euo pipefail
python=$1
venv=$2

"$python" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 14):
    sys.exit(
        f"The book's environment is pinned for Python 3.11; {sys.executable} is "
        f"{sys.version.split()[0]}. Name another one: make PYTHON=/path/to/python3.11 book"
    )
PY

if [ ! -x "$venv/bin/python" ]; then
  echo "Making $venv with $("$python" --version)"
  # Debian splits ensurepip out of python3; the system's pip can then fill the environment.
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    rm -rf "$venv"
    if "$python" -m pip --version >/dev/null 2>&1; then
      "$python" -m venv --without-pip "$venv"
      "$python" -m pip --quiet --python "$venv/bin/python" install pip
    else
      echo "This Python has neither venv nor pip: apt install python3-venv (as root), then again." >&2
      exit 1
    fi
  fi
fi

echo "Installing the pinned packages (a few minutes the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
# setuptools warns about every editable installation.
PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-deps --no-build-isolation -e .
"$venv/bin/python" -m pip check --disable-pip-version-check
