#!/usr/bin/env bash
# Generate the Python code of protos/ into the folder $1, and where there is Go, that of clients/go,
# with pinned generators.
#
# The generator is older than what coalmine runs with, on purpose: generated code refuses a runtime
# older than its generator, so the generator's version is the floor of ours (see pyproject.toml).
set -euo pipefail
PROTOC_GEN_GO=v1.36.12
PROTOC_GEN_GO_GRPC=v1.6.2
cd "$(dirname "$0")/.."
out=${1:-protos}
root=${1:-.}
venv=.venv-protos
if [ ! -x "$venv/bin/protoc-gen-mypy" ]; then
  echo "installing the protobuf generator into $venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -c tools/protos-constraints.txt \
    grpcio-tools mypy-protobuf
fi
PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc -I protos \
  --python_out="$out" --grpc_python_out="$out" \
  --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  coalmine/inference/inference.proto coalmine/control/v1/control.proto
# Package inference lives in a pool of its own: see coalmine/inference/pool.py.
sed -i.orig \
  -e 's/^from google.protobuf import descriptor_pool as _descriptor_pool$/from coalmine.inference.descriptor_pool import POOL as _POOL/' \
  -e 's/_descriptor_pool\.Default()/_POOL/' \
  "$out/coalmine/inference/inference_pb2.py"
rm "$out/coalmine/inference/inference_pb2.py.orig"
grep -q '_POOL.AddSerializedFile' "$out/coalmine/inference/inference_pb2.py"

if ! command -v go >/dev/null; then
  echo "protos: there is no go: clients/go is left as it is"
  exit
fi
gobin=$PWD/$venv/go-$PROTOC_GEN_GO-$PROTOC_GEN_GO_GRPC
if [ ! -x "$gobin/protoc-gen-go-grpc" ]; then
  echo "installing the generators of Go into $gobin"
  GOBIN=$gobin go install "google.golang.org/protobuf/cmd/protoc-gen-go@$PROTOC_GEN_GO"
  GOBIN=$gobin go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$PROTOC_GEN_GO_GRPC"
fi
PATH="$gobin:$PATH" "$venv/bin/python" -m grpc_tools.protoc -I protos \
  --go_out="$root" --go_opt=module=coalmine --go-grpc_out="$root" --go-grpc_opt=module=coalmine \
  coalmine/inference/inference.proto
