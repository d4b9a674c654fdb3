#!/usr/bin/env bash
# Runs every fuzz target of the packages that read files and texts from outside, two at a time.
#
#   scripts/fuzz.sh [TIME] [PACKAGE...]     TIME for each target, 60s unless given; packages are all
#
# What a target finds is kept by Go in the package's testdata/fuzz: mend it, and keep the input as a named test.
# Inputs that are new, but good, are made smaller in 20 tries only: by itself Go would spend a minute on each.
set -euo pipefail
cd "$(dirname "$0")/.."

export GOEXPERIMENT=simd
export GODEBUG="asyncpreemptoff=1${GODEBUG:+,$GODEBUG}"
time=${1:-60s}
shift || true
packages=("$@")
[ ${#packages[@]} -gt 0 ] || packages=(./pkg/...)

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

# fuzz runs one target and prints a line about it; what it printed itself only if it failed. Go now and then reports the
# end of the time itself as a failure (golang/go issue 48591); a finding always names a failing input.
fuzz() {
  local package=$1 target=$2 out="$log/$2"
  if go test -tags nogcs "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" \
    -fuzzminimizetime 20x -parallel 1 -timeout 30m >"$out" 2>&1 ||
    { grep -q '^ *context deadline exceeded$' "$out" && ! grep -qiE 'failing input|panic|--- FAIL: [^ ]*/' "$out"; }; then
    printf 'ok    %s %s: %s\n' "$package" "$target" "$(grep -o 'execs: [0-9]*' "$out" | tail -n 1)"
  else
    printf 'FAIL  %s %s\n' "$package" "$target"
    cat "$out"
    return 1
  fi
}
export -f fuzz
export log time

# grep -l finds the packages that have targets: listing the targets of all would build the tests of all.
list() {
  go list -f '{{.Dir}} {{.ImportPath}}' "${packages[@]}" | while read -r dir package; do
    grep -qs '^func Fuzz' "$dir"/*_test.go || continue
    grep -hs '^func Fuzz' "$dir"/*_test.go | sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' | sort |
      while read -r target; do printf '%s %s\n' "$package" "$target"; done
  done
}
list | xargs -P 2 -L 1 bash -c 'fuzz "$1" "$2"' _
