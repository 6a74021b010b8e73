#!/usr/bin/env bash
# Fail where the committed generated code is not what protos/ gives.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
tools/protos.sh "$fresh"
status=0
if ! command -v go >/dev/null && [[ " ${COALMINE_DEMAND:-} " == *" go "* ]]; then
  echo "protos: COALMINE_DEMAND demands go, and there is none"
  status=1
fi
while IFS= read -r file; do
  diff -u "$file" "$fresh/$file" || status=1
done < <(cd "$fresh" && find clients -name '*.pb.go' 2>/dev/null | sort)
while IFS= read -r file; do
  diff -u "protos/$file" "$fresh/$file" || status=1
done < <(cd "$fresh" && find . -name '*_pb2*.py*' | sort)
[ "$status" = 0 ] && echo "protos: generated code is up to date" || echo "protos: run 'make protos'"
exit "$status"
