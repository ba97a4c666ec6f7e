#!/bin/sh
# What lore does with a GPU, on a machine that has one and nothing else: tests, figures,
# and other programs beside them on the same weights.
#
#   bench/device.sh BIN [SECTION ...]
#
# BIN is a build folder (lore, tests/), or a copy of one; libraries in BIN/lib are found. Without
# sections all run, most important first, none longer than is meant for it (seconds_of below), or
# than LIMIT seconds where that is set. Everything is printed as it comes, and appended to LOG where
# that is set. Model folders are made of random weights in a RAM disk (MODELS says where else), once
# for all sections, and stay there. Exit status: how many sections failed.
#
#   DEVICE=cpu SHAPE=llama-10m SMALL=llama-10m bench/device.sh build decode    tries a section out
set -u

ROOT=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
BIN=$(cd "$1" && pwd) || exit 2
shift
DEVICE=${DEVICE:-cuda}
SHAPE=${SHAPE:-mistral-7b}
SMALL=${SMALL:-llama-1b}
SOAK=${SOAK:-60}
PYTHON=${PYTHON:-python3}
PEERS=$ROOT/bench/peers
LORE="$BIN/lore --device $DEVICE"
# A server of one GPU: room for 192 answers.
SERVING="--set limits.kv_bytes_max=${KV_BYTES:-40000000000}
         --set limits.batch_sequences_max=${BATCH:-192} --set limits.step_tokens_max=1024"
export LD_LIBRARY_PATH="$BIN/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LORE_PROMPTS="$ROOT/prompts" LORE_ENCODER="$ROOT/weights/encoder" PYTHONUNBUFFERED=1
export PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=true
cd "$ROOT" || exit 2

# ---- where the folders go ----

free_gigabytes() { df -P -B1G "$1" 2> /dev/null | awk 'NR == 2 { print $4 }'; }

if [ -z "${MODELS:-}" ]; then
    MODELS=/dev/shm/lore-bench
    if [ "$(free_gigabytes /dev/shm || echo 0)" -lt 40 ]; then
        MODELS=$(mktemp -d)
        mount -t tmpfs -o size=48g tmpfs "$MODELS" 2> /dev/null ||
            echo "no RAM disk: folders are made in $MODELS"
    fi
fi
mkdir -p "$MODELS" || exit 2

# need NAME COMMAND...: the folder, unless it is there.
need() {
    name=$1
    shift
    if [ ! -e "$MODELS/$name/.whole" ]; then
        echo "making $name"
        "$@" "$MODELS/$name" && touch "$MODELS/$name/.whole"
    fi
}
need_large() { need "$SHAPE" "$PYTHON" "$PEERS/make_decoder.py" --shape "$SHAPE"; }
need_small() { need "$SMALL" "$PYTHON" "$PEERS/make_decoder.py" --shape "$SMALL"; }
need_trained() { need trained "$PYTHON" "$PEERS/make_decoder.py" --from weights/decoder; }
need_encoder() { need bert-33m "$PYTHON" "$PEERS/make_minilm.py" --layers 12 --no-onnx; }

# ---- sections ----

bench() { # FOLDER ARGUMENTS...
    folder=$1
    shift
    # shellcheck disable=SC2086
    $LORE bench "$@" --set decoder="$MODELS/$folder"
}

section_about() {
    $LORE version
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv
    "$PYTHON" -c 'import torch, transformers; print("torch", torch.__version__, "transformers",
transformers.__version__)'
}
section_tests() {
    failed=0
    for test in "$BIN"/tests/*_gpu* "$BIN"/tests/test_backend; do
        echo "-- $(basename "$test")"
        "$test" || [ $? = 77 ] || failed=1
    done
    return "$failed"
}
section_decode() { need_large && bench "$SHAPE" decode --batch 1,8,32,128 --context 512; }
section_decode_long() { need_large && bench "$SHAPE" decode --batch 1,32 --context 2048; }
section_prefill() {
    # shellcheck disable=SC2086
    need_large && bench "$SHAPE" prefill --prompt 512,2048,4096 $SERVING
}
section_decode_small() { need_small && bench "$SMALL" decode --batch 1,8,32 --context 512; }
section_ops() { $LORE bench ops --case-ms 100; }
section_greedy() {
    need_trained && find corpora/help -type f -exec cat {} + > "$MODELS/text" &&
        greedy trained --text "$MODELS/text"
}
section_greedy_large() { need_large && greedy "$SHAPE"; }
greedy() { # FOLDER OPTIONS...
    folder=$1
    out=$MODELS/$1.greedy
    shift
    "$PYTHON" "$PEERS/measure_transformers.py" "$MODELS/$folder" greedy "$out" \
        --device "$DEVICE" "$@" &&
        bench "$folder" greedy "$out/prompts.jsonl" > "$out/ours.jsonl" &&
        "$PYTHON" "$PEERS/compare_greedy.py" "$out/theirs.json" "$out/ours.jsonl"
}
section_encode() {
    need_encoder && "$PYTHON" "$PEERS/peers.py" gpu-encoder "$MODELS/bert-33m" \
        --lore "$BIN/lore" --device "$DEVICE" --texts "${TEXTS:-8192}"
}
section_search() { $LORE bench search --vectors 1000000; }
section_start() { need_large && bench "$SHAPE" start; }
section_start_small() { need_small && bench "$SMALL" start; }
section_serve() {
    # shellcheck disable=SC2086
    need_large && bench "$SHAPE" serve --find-rate --seconds "${SECONDS_EACH:-10}" $SERVING
}
peer_decode() { # BATCH
    need_large && "$PYTHON" "$PEERS/peers.py" gpu-decoder "$MODELS/$SHAPE" --lore "$BIN/lore" \
        --device "$DEVICE" --batches "$1" --prompt 512
}
section_peer_decode_1() { peer_decode 1; }
section_peer_decode_8() { peer_decode 8; }
section_peer_decode_32() { peer_decode 32; }
section_peer_decode_128() { peer_decode 128; }
section_peer_serve() {
    need_large && "$PYTHON" "$PEERS/measure_transformers.py" "$MODELS/$SHAPE" serve \
        --device "$DEVICE"
}
section_soak() {
    # shellcheck disable=SC2086
    need_small && bench "$SMALL" serve --soak "$SOAK" $SERVING
}

ALL="about tests decode prefill decode_long ops decode_small greedy encode search start start_small
peer_decode_1 peer_decode_8 peer_decode_32 peer_decode_128 serve soak peer_serve
greedy_large"

# ---- one after the other ----

# A section is this script again, so that timeout can end it with all that it started.
if [ "${LORE_SECTION:-}" != "" ]; then
    "section_$LORE_SECTION"
    exit $?
fi
# Seconds that a section may take, with the model folder that it may have to make. Those with other
# programs take longest: these load slowly, and compile.
seconds_of() {
    case $1 in
    tests) echo 270 ;;
    encode | greedy* | peer_serve) echo 180 ;;
    peer_decode_*) echo 150 ;;
    soak) echo $((90 + SOAK)) ;;
    *) echo 90 ;;
    esac
}
say() { if [ -n "${LOG:-}" ]; then tee -a "$LOG"; else cat; fi; }
[ $# -gt 0 ] || set -- $ALL
failures=0
for section in "$@"; do
    limit=${LIMIT:-$(seconds_of "$section")}
    echo "==== $section ($(date +%T))" | say
    status=$(mktemp)
    {
        LORE_SECTION=$section MODELS=$MODELS DEVICE=$DEVICE timeout -k 5 "$limit" sh "$0" "$BIN" 2>&1
        echo $? > "$status"
    } | say
    code=$(cat "$status")
    rm -f "$status"
    [ "$code" = 0 ] || { failures=$((failures + 1)) && echo "---- $section: exit $code" | say; }
done
echo "==== done ($(date +%T)), $failures failed" | say
exit $failures
