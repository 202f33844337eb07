// SPDX-License-Identifier: Apache-2.0

package realserver

// The object and the Go copies of rs_types.h are generated and committed, so that
// building needs Go alone. One object serves amd64 and arm64.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type address -type outcome decap ../../bpf/rs_decap.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -I/usr/include/x86_64-linux-gnu
