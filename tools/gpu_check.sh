#!/usr/bin/env bash
# What a GPU is worth: CUDA tests, training speed, correction, a training; eight minutes at most.
#   tools/gpu_check.sh [OUT] [--rehearse]
# OUT (default: the variable OUT, else build/gpu) takes gpu.json and gpu.md, rewritten as results
# come. Nothing is fetched or installed. PYTHON names the interpreter; else the first one whose
# torch sees a GPU is taken. What it lacks comes from the file that tools/gpu_carry.py packs:
# carried/site.tar.xz, or the variable CARRIED.
set -euo pipefail
began=$SECONDS
out=${OUT:-build/gpu}
rehearse=()
for word in "$@"; do
    case "$word" in
        --rehearse) rehearse=(--rehearse) ;;
        -*)
            echo "gpu_check: $word: unknown; give [OUT] [--rehearse]" >&2
            exit 2
            ;;
        *) out=$word ;;
    esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
carried=${CARRIED:-carried/site.tar.xz}
usable="import sys, torch; sys.exit(not (torch.cuda.is_available() or ${#rehearse[@]}))"
python=
for name in "${PYTHON:-}" .venv/bin/python python3 python python3.12 python3.13 python3.11; do
    if [ -n "$name" ] && "$name" -c "$usable" 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "gpu_check: no Python here has a torch that sees a GPU; name one as PYTHON=..." >&2
    exit 2
fi
export PYTHONPATH=$PWD:$PWD/src PYTHONUNBUFFERED=1
needed="import pytest, napari_txm_bgcorr.cli, napari_txm_bgcorr.training.loop, \
napari_txm_bgcorr.evaluation.benchmark.training, napari_txm_bgcorr.io.readers.hdf5, napari_txm_bgcorr.io.readers.omezarr, \
napari_txm_bgcorr.io.output.zarr, napari_txm_bgcorr.io.readers.xradia"
if ! "$python" -c "$needed" 2>/dev/null && [ -f "$carried" ]; then
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    echo "gpu_check: unpacking $carried"
    "$python" -c "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='data')" \
        "$carried" "$unpacked"
    export PYTHONPATH=$PYTHONPATH:$unpacked
fi
if ! "$python" -c "$needed"; then
    echo "gpu_check: $python lacks what is named above; pack it with tools/gpu_carry.py" >&2
    exit 2
fi
"$python" -m benchmarks.gpu_check "$out" "${rehearse[@]}" --spent $((SECONDS - began)) 2>&1 \
    | tee "$out/gpu.log"
