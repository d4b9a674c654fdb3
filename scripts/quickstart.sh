#!/usr/bin/env bash
# Trains a small BLIP-2 stage 1 on 100 real photographs, in about five minutes on two cores. Nothing is downloaded but
# Go modules. Arguments are passed on: scripts/quickstart.sh --backend xla:cpu
#
#   scripts/quickstart.sh --full [--llm opt|t5] [--backend NAME]
#
# goes on to stage 2: it trains a small language model on the captions, OPT (the default) or Flan-T5 in form, freezes it,
# and teaches the Q-Former to make it describe the photographs. The table at the end shows what the captions are worth
# with and without the pictures.
set -euo pipefail
cd "$(dirname "$0")/.."

full=false
llm=opt
args=()
while (($#)); do
  case "$1" in
    --full) full=true ;;
    --llm) llm="${2-}"; shift ;;
    --llm=*) llm="${1#--llm=}" ;;
    *) args+=("$1") ;;
  esac
  shift || break
done
case "$llm" in
  opt) suffix= ;;
  t5) suffix=_t5 ;;
  *) echo "quickstart.sh: --llm \"$llm\": want opt or t5" >&2; exit 2 ;;
esac
if [[ "$llm" != opt ]] && ! $full; then
  echo "quickstart.sh: --llm is for stage 2: add --full" >&2
  exit 2
fi
if [[ " ${args[*]-} " != *" --backend"* ]]; then
  args=(--backend "${BLIP2_BACKEND:-go}" "${args[@]}")
fi

scripts/build.sh
if ! $full; then
  exec bin/blip2 pretrain-stage1 --config configs/quickstart.yaml "${args[@]}"
fi

name="quickstart-$(date +%Y%m%d-%H%M%S)"
echo "== 1 of 3: stage 1, the Q-Former"
bin/blip2 pretrain-stage1 --config configs/quickstart.yaml --set run.name="$name-stage1" "${args[@]}"
echo
echo "== 2 of 3: a language model of captions, which is then frozen"
bin/blip2 pretrain-lm --config "configs/quickstart_lm$suffix.yaml" --set out="runs/$name-lm" "${args[@]}"
echo
echo "== 3 of 3: stage 2, the language model learns to see"
bin/blip2 pretrain-stage2 --config "configs/quickstart_stage2$suffix.yaml" --set run.name="$name-stage2" \
  --set stage1="runs/$name-stage1" --set llm.path="runs/$name-lm" "${args[@]}"
