#!/usr/bin/env bash
# Checks an image that was built from Dockerfile.cuda: JPEG by libjpeg-turbo, every plugin in it, scores, and a training
# that is stopped, saves, and goes on; by a user without rights, without a network and with a read-only disk.
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
installed() { grep -q "\"kind\":\"$1\",\"version\":\"[^\"]*\",\"state\":\"installed\"" <<<"$plugins"; }
for kind in cpu cuda; do
  if ! installed $kind; then
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

echo "== scores"
cat >"$runs/references.json" <<'JSON'
{"images": [{"id": 1}, {"id": 2}], "annotations": [
  {"id": 1, "image_id": 1, "caption": "a brown dog runs over the grass"},
  {"id": 2, "image_id": 2, "caption": "two people on a beach"}]}
JSON
echo '[{"image_id": 1, "caption": "a dog on grass"}, {"image_id": 2, "caption": "people at the beach"}]' \
  >"$runs/results.json"
blip2 score captions --results runs/results.json --annotations runs/references.json 2>&1 | tee "$runs/scores.txt"
if grep -q "making the index" "$runs/scores.txt"; then fail "METEOR's index is not in this image, or not found good"; fi
for kind in meteor spice; do
  if installed $kind && ! grep -i -q "^ *$kind *[0-9]" "$runs/scores.txt"; then
    fail "$kind is in this image, but was not computed"
  fi
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
