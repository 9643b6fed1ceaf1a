#!/bin/sh
# Runs a compiler as asked (CMAKE_CUDA_COMPILER_LAUNCHER) and keeps what it said beside the object, for tests/cuda/test_compile.py.
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
"$@" 2> "$object.log"
code=$?
[ $code -eq 0 ] || { rm -f "$object"; cat "$object.log" >&2; }
exit $code
