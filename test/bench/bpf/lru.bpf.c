// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* lru.bpf.c: (e), lvx itself with the connection tables of lru.h. Never shipped. */
#define CONN_H "../test/bench/bpf/lru.h"
#include "../../../bpf/lvs.bpf.c"
