#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Refreshes the pinned libbpf headers (LGPL-2.1 OR BSD-2-Clause) from the
# machine's libbpf-dev package. Last taken from Debian's libbpf-dev 1.1.0.
set -eu
cd "$(dirname "$0")"
for header in bpf_helpers.h bpf_helper_defs.h bpf_endian.h; do
	cp "/usr/include/bpf/$header" "bpf/$header"
done
