#!/usr/bin/env bash
# The first quarter of an hour on a GPU (docs/machines.md).
#   benchmarks/first_gpu.sh --pack              packages and data for a machine without a network
#   benchmarks/first_gpu.sh tests speed         on that machine: at most 5.5 minutes
#   benchmarks/first_gpu.sh method features     at most 8 minutes
#   benchmarks/first_gpu.sh --rehearse          every stage, small, on a CPU
# Results: results.jsonl, tests.txt, console.txt in $OUT (outputs/first_gpu/results).
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
pack=outputs/first_gpu/pack.tar.xz
declare -A seconds=([tests]=120 [speed]=200 [method]=400 [features]=60)
small=()
case ${1-} in
  --pack) exec "$python" -m benchmarks.first_gpu pack "${@:2}" ;;
  --rehearse) small=(--rehearse) && shift ;;
esac
[ $# -gt 0 ] || set -- tests speed method features
out=$(realpath -m "${OUT:-outputs/first_gpu/results}")
work=$(mktemp -d)
runs=$work/runs
free=$(df --output=avail /dev/shm 2> /dev/null | tail -n 1) # KB; a checkpoint has 0.5 GB
[ "${free:-0}" -lt 30000000 ] || runs=$(mktemp -d -p /dev/shm)
trap 'rm -rf "$work" "$runs"' EXIT
export PYTHONPATH=$work/packages:$PWD PYTHONUNBUFFERED=1

run_stage() {
  if [ "$1" = tests ]; then
    local marked=gpu
    [ ${#small[@]} -eq 0 ] || marked="not gpu and not slow"
    timeout -k 10 "$2" "$python" -m pytest tests/gpu -m "$marked" -rA -vv -p no:cacheprovider \
      -o faulthandler_timeout=60 | tee -a "$out/tests.txt"
  else
    timeout -k 10 "$2" "$python" -m benchmarks.first_gpu "$1" --work "$work" --runs "$runs" \
      --out "$out" --seconds "$2" "${small[@]}"
  fi
}

run_all() {
  if [ ${#small[@]} -eq 0 ]; then
    [ ! -f $pack ] || "$python" -m tarfile -e $pack "$work"
    "$python" -c 'import torch; torch.zeros(1, device="cuda")' || return
  fi
  "$python" - << 'END'
import importlib.metadata, re, sys, tomllib
with open("pyproject.toml", "rb") as file:
    names = [re.match(r"[\w-]+", text)[0] for text in tomllib.load(file)["project"]["dependencies"]]
there = {d.name.lower().replace("_", "-") for d in importlib.metadata.distributions()}
print("Python", sys.version.split()[0], "without", *(name for name in names if name not in there))
END
  for stage in "$@"; do
    local limit=${seconds[$stage]} started=$SECONDS
    [ ${#small[@]} -eq 0 ] || limit=600 # on a busy CPU
    echo "== $stage: at most $limit s"
    run_stage "$stage" "$limit"
    echo "== $stage: status $?, $((SECONDS - started)) s"
  done
}

mkdir -p "$out"
run_all "$@" 2>&1 | tee -a "$out/console.txt"
