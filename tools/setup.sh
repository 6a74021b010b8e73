#!/usr/bin/env bash
# Install coalmine and its tools into the virtual environment $1.
#
# What PyPI has of torch for Linux is the CUDA build. TORCH_INDEX is another index, for torch alone.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
index=${TORCH_INDEX:-}
ticker=

say() { echo "setup: $*"; }

torch_there() {
  "$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null
}

say_size() {
  if there=$(torch_there); then
    say "torch $there is there, and stays: 'make clean' removes it${index:+; TORCH_INDEX is not asked}"
  elif [ -n "$index" ]; then
    say "torch comes from $index, all else from PyPI: a few minutes; with the CPU build less than 2 GB"
  elif [ "$(uname -s)" = Linux ]; then
    say "5.2 GB, a few minutes: PyPI's torch for Linux is the CUDA build"
    say "without a GPU, make setup TORCH_INDEX=URL takes the CPU build: README.md has the URL"
  else
    say "less than 2 GB, a few minutes"
  fi
}

# pip shows its progress in a terminal only. Elsewhere: large downloads, and the time now and then.
install() {
  if [ -t 1 ]; then
    "$venv/bin/pip" install "$@"
    return
  fi
  while sleep 15 >/dev/null 2>&1; do say "still installing, $SECONDS s"; done &
  ticker=$!
  "$venv/bin/pip" install "$@" | awk '
    /(Downloading|Using cached) .*\(([0-9]+[0-9.]* GB|[0-9][0-9][0-9.]* MB)\)/ { print "setup: " $0 }
    /^Installing collected packages/ { print "setup: installing " NF - 3 " packages" }
    { fflush() }'
  end_ticker
}

end_ticker() {
  [ -z "$ticker" ] || kill "$ticker" 2>/dev/null || true
  ticker=
}
trap end_ticker EXIT

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
say "coalmine and its tools, into $venv"
say_size
# Alone, and without what it depends on: an index of torch has not everything else.
[ -z "$index" ] || torch_there >/dev/null || install --no-deps --index-url "$index" "$(grep '^torch==' constraints.txt)"
install -c constraints.txt -e '.[router,server,demo,interop,dev]'
say "done, $SECONDS s"
