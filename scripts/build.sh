#!/usr/bin/env bash
# Builds bin/blip2 with the SIMD kernels of the Go backend. With a C compiler the binary can load XLA plugins too;
# CGO_ENABLED=0 gives a static binary with the Go backend only.
#
#   scripts/build.sh [OUTPUT]
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v go >/dev/null; then
  echo "build.sh: Go is not installed; get Go 1.26 or newer from https://go.dev/dl/" >&2
  exit 1
fi
if [ -z "${CGO_ENABLED:-}" ] && ! command -v "${CC:-cc}" >/dev/null; then
  echo "build.sh: no C compiler: building the static binary with the Go backend only" >&2
  export CGO_ENABLED=0
fi
export GOEXPERIMENT=simd
go build -buildvcs=auto -trimpath -o "${1:-bin/blip2}" ./cmd/blip2
