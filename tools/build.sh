#!/usr/bin/env bash
# Make the wheel; install it into empty environments, without torch and with; show that it runs there.
#
# The first environment has no constraints: it is what `pip install coalmine` gives a user today.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
rm -rf dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "build: making the wheel"
"$python" -m venv "$work/make"
"$work/make/bin/pip" install --quiet build
"$work/make/bin/python" -m build --outdir dist . >"$work/build.log" || { cat "$work/build.log"; exit 1; }
wheel=$(echo dist/*.whl)
echo "build: $wheel"

echo "build: into an empty environment, without torch"
"$python" -m venv "$work/plain"
"$work/plain/bin/pip" install --quiet "$wheel"
cd "$work"
plain/bin/coalmine --help
! plain/bin/python -c 'import torch' 2>/dev/null || { echo "build: torch came along"; exit 1; }
said=$(plain/bin/coalmine server run --model-repository . 2>&1) && { echo "build: a server without torch"; exit 1; }
echo "build: without torch: $said"

echo "build: with [server]"
"$python" -m venv "$work/server"
server/bin/pip install --quiet -c "$OLDPWD/constraints.txt" "$OLDPWD/$wheel[server]"
server/bin/coalmine server run --help
server/bin/python -c 'import torch; print("build: torch", torch.__version__)'
mkdir models
server/bin/coalmine server check models && { echo "build: an empty repository passed"; exit 1; }
echo "build: done"
