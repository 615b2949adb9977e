#!/bin/sh
# Builds record.c and records this machine's processor into src/float/testdata: run it where the processor is the oracle you want.
# The committed files were recorded on an AMD EPYC of family 1Ah (Zen 5).
set -e
cd "$(dirname "$0")"
program=$(mktemp)
trap 'rm -f "$program"' EXIT
gcc -O1 -no-pie -Wall -Wextra -o "$program" record.c
into=../../src/float/testdata
"$program" sse 200 1 | gzip -9n > $into/sse.txt.gz
"$program" x87 400 1 | gzip -9n > $into/x87.txt.gz
"$program" transcendental 600 1 | gzip -9n > $into/transcendental.txt.gz
