#!/usr/bin/env bash
# Checks an image that was built from Dockerfile.cuda: JPEG by libjpeg-turbo, every plugin in it, and a training by a user
# without rights in a container without a network and with a read-only disk, which is stopped, saves, and goes on.
#
#   scripts/test_container.sh IMAGE [ARGUMENTS of "run", such as --gpus all]
#
# ENGINE is docker (the default) or podman. Plugins are loaded but for cuda, which also needs "--gpus all".
set -euo pipefail
cd "$(dirname "$0")/.."

if (($# < 1)); then
  sed -n '2,7s/^# \?//p' "$0" >&2
  exit 2
fi
image=$1
shift
engine=${ENGINE:-docker}
runs=$(mktemp -d)
name="blip2-test-$$"
trap '"$engine" rm --force "$name" >/dev/null 2>&1 || true; rm -rf "$runs"' EXIT
chmod 0777 "$runs"

fail() {
  echo "test_container.sh: $*" >&2
  exit 1
}
# What every container here gets. The user is nobody in particular, and is not in the image's list of users.
common=(--network none --read-only --tmpfs /tmp --user 12345:12345 --volume "$runs:/workspace/runs" "$@")
blip2() { "$engine" run --rm "${common[@]}" "$image" "$@"; }

echo "== the program"
blip2 version

echo "== pictures"
blip2 bench data --images data/quickstart/images --count 100 --json >"$runs/data.json"
grep -q '"jpeg_decoder": *"libjpeg-turbo"' "$runs/data.json" || fail "JPEG is not decoded by libjpeg-turbo"
echo "decoded by libjpeg-turbo"

echo "== plugins"
backend=go
plugins=$(blip2 plugin list --json)
for kind in cpu cuda; do
  if ! grep -q "\"kind\":\"$kind\",\"version\":\"[^\"]*\",\"state\":\"installed\"" <<<"$plugins"; then
    echo "$kind: not in this image"
    continue
  fi
  if [ "$kind" = cuda ] && [[ " $* " != *" --gpus "* && " $* " != *" --device "* ]]; then
    echo "cuda: in this image; not tried without a GPU (--gpus all)"
    continue
  fi
  blip2 plugin check "xla:$kind"
  backend=xla:$kind
done

# The last step that the run has logged; 0 without one.
last_step() { grep -o '"step": *[0-9]*' "$runs/test/metrics.jsonl" 2>/dev/null | tail -n 1 | grep -o '[0-9]*$' || echo 0; }

echo "== a training on $backend that is stopped"
train=(pretrain-stage1 --config configs/quickstart.yaml --backend "$backend" --set run.name=test --set train.log_every=1
  --set train.steps=100k)
"$engine" run --detach --name "$name" "${common[@]}" "$image" "${train[@]}" >/dev/null
for _ in $(seq 300); do
  if (($(last_step) > 0)); then break; fi
  sleep 1
done
"$engine" stop --time 120 "$name" >/dev/null
"$engine" logs "$name" 2>&1 | tail -n 1
code=$("$engine" inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" = 130 ] || fail "exit code $code of the stopped training, want 130"
step=$(last_step)
((step > 0)) || fail "no step within five minutes"

echo "== and goes on for a minute"
blip2 "${train[@]}" --resume --max-time 60s --quiet | tail -n 2
(($(last_step) > step)) || fail "the training did not go on from step $step"
echo "passed: from step $step to $(last_step)"
