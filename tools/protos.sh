#!/usr/bin/env bash
# Generate the Python code of protos/ into the folder $1, with the pinned generator.
#
# The generator is older than what coalmine runs with, on purpose: generated code refuses a runtime
# older than its generator, so the generator's version is the floor of ours (see pyproject.toml).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-protos}
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
  -e 's/^from google.protobuf import descriptor_pool as _descriptor_pool$/from coalmine.inference.pool import POOL as _POOL/' \
  -e 's/_descriptor_pool\.Default()/_POOL/' \
  "$out/coalmine/inference/inference_pb2.py"
rm "$out/coalmine/inference/inference_pb2.py.orig"
grep -q '_POOL.AddSerializedFile' "$out/coalmine/inference/inference_pb2.py"
