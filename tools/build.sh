#!/usr/bin/env bash
# Make the wheel; install it into empty environments, bare, router and server; show that it runs there.
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

echo "build: into an empty environment, what calling needs"
"$python" -m venv "$work/plain"
"$work/plain/bin/pip" install --quiet "$wheel"
cd "$work"
plain/bin/coalmine --help
for each in torch scipy uvloop opentelemetry structlog; do
  ! plain/bin/python -c "import $each" 2>/dev/null || { echo "build: $each came along"; exit 1; }
done
plain/bin/coalmine protos --to protos
diff -r -x '*.p*y*' -x __pycache__ protos/coalmine/inference "$OLDPWD/protos/coalmine/inference"
plain/bin/python -c 'import coalmine_client; print("build:", *dir(coalmine_client))'
for each in "server run --model-repository ." "package x.pt" "router check x.yaml" demo; do
  said=$(plain/bin/coalmine $each 2>&1) && { echo "build: coalmine $each without its extra"; exit 1; }
  case $said in
    *"pip install 'coalmine["*) echo "build: bare: $said" ;;
    *) echo "build: coalmine $each doesn't say which extra: $said"; exit 1 ;;
  esac
done
du -sm plain/lib | sed 's/^/build: bare, MB: /'

echo "build: with [router]"
"$python" -m venv "$work/router"
router/bin/pip install --quiet -c "$OLDPWD/constraints.txt" "$OLDPWD/$wheel[router]"
router/bin/coalmine router run --help
! router/bin/python -c 'import torch' 2>/dev/null || { echo "build: torch came along"; exit 1; }
said=$(router/bin/coalmine server run --model-repository . 2>&1) && { echo "build: a server without torch"; exit 1; }
echo "build: without torch: $said"
printf 'backends: {a: {targets: ["127.0.0.1:1"]}}\nroutes: [{name: r, match: {model: m}, variants: {stable: {backend: a}}}]\n' >router.yaml
router/bin/coalmine router check router.yaml
du -sm router/lib | sed 's/^/build: router, MB: /'

echo "build: with [server]"
"$python" -m venv "$work/server"
server/bin/pip install --quiet -c "$OLDPWD/constraints.txt" "$OLDPWD/$wheel[server]"
server/bin/coalmine server run --help
server/bin/python -c 'import torch; print("build: torch", torch.__version__)'
mkdir models
server/bin/coalmine server check models && { echo "build: an empty repository passed"; exit 1; }
echo "build: done"
