#!/usr/bin/env bash
# All checks of the project: vet, the tests on the Go backend, then the XLA tests and the reference cases on XLA CPU
# (its plugin and METEOR's data are installed if they are missing), and a few seconds of every fuzz target. Without a C
# compiler the XLA part is left out, and said so.
#
#   scripts/test.sh [--long]     --long fuzzes every target for a minute, and adds proofs that take minutes: a million
#                                samples from shards, ten million rows, 64 pairs learned by heart, captions learned by
#                                seeing, gradient caching and more devices on XLA
#
# The reference cases are looked for in ../shared/golden, or in $BLIP2_GOLDEN.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime=5s
long=
case "${1:-}" in
  "") ;;
  --long) fuzztime=60s long=1 ;;
  *) echo "test.sh: unknown argument $1; want --long or nothing" >&2; exit 2 ;;
esac

export GOEXPERIMENT=simd
# See cmd/blip2/preempt.go: without this the Go backend is many times slower on some machines.
export GODEBUG="asyncpreemptoff=1${GODEBUG:+,$GODEBUG}"

echo "== format and vet"
unformatted=$(gofmt -l cmd pkg scripts)
if [ -n "$unformatted" ]; then
  printf 'gofmt wants these:\n%s\n' "$unformatted" >&2
  exit 1
fi
go vet ./...

echo "== the static build"
CGO_ENABLED=0 go build -o /dev/null ./cmd/blip2

echo "== tests on the Go backend"
go test -timeout 20m ./...

echo "== fuzz targets, $fuzztime each"
scripts/fuzz.sh "$fuzztime"

if [ "$(go env CGO_ENABLED)" != 1 ] || ! command -v "$(go env CC)" >/dev/null; then
  echo "== no C compiler: the XLA tests are left out"
  exit 0
fi

echo "== pictures by libjpeg-turbo, where the library is"
go vet -tags=turbojpeg ./pkg/dataset/... ./pkg/cli
go test -tags=turbojpeg ./pkg/dataset/turbojpeg ./pkg/dataset

echo "== XLA CPU plugin, and the data of METEOR"
scripts/build.sh
bin/blip2 plugin install cpu
bin/blip2 plugin check xla:cpu
bin/blip2 plugin install meteor

echo "== tests on XLA CPU, METEOR among them"
export BLIP2_TEST_BACKEND=xla:cpu
go test -timeout 30m -count=1 ./pkg/model/... ./pkg/trainer ./pkg/mesh ./pkg/plan ./pkg/generate
go test -timeout 30m -count=1 -run 'OnBackend|HalfPrecision' ./pkg/verify
go test -timeout 30m -count=1 -run TestDevicesEqualOne/frozen ./pkg/stage1
go test -timeout 30m -count=1 -run TestWriting ./pkg/stage1
go test -timeout 30m -count=1 -run 'Stretches|Remat|Reads' ./pkg/stage2
if [ -n "$long" ]; then
  echo "== proofs that take minutes"
  go test -timeout 60m -count=1 -run 'Devices|SpreadLLM|ContrastiveAccumulationXLA' ./pkg/stage1 ./pkg/stage2
  go test -timeout 60m -count=1 -run RecordedGradient ./pkg/verify
  BLIP2_LONG=1 go test -timeout 60m -count=1 -run 'TestOverfitsRealPictures|TestSeeing' ./pkg/cli
  BLIP2_LONG=1 go test -timeout 60m -count=1 -run TestSoak ./pkg/dataset/shard
  BLIP2_ROWS=10000000 go test -timeout 60m -count=1 -run TestRowsInAFewBytes ./pkg/dataset
fi
unset BLIP2_TEST_BACKEND

echo "== reference cases in the binary, on both backends"
bin/blip2 verify --backend go
bin/blip2 verify --backend xla:cpu
