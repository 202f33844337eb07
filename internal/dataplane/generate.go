// SPDX-License-Identifier: Apache-2.0

package dataplane

// The objects and the Go copies of types.h are generated and committed, so that
// building needs Go alone. One object serves amd64 and arm64.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type addr -type conn_bits -type server_state -type hop_state -type sweep -type conn_entry -type conn_key -type slot -type client6 -type glance -type inside -type fill -type settle -type tunnel_type -type tunnel_flag -type sought_addr -type method -type scheduler -type pool_flag bpf ../../bpf/lvs.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix _test -no-global-types bpfTest ../../bpf/lvs_test.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -I/usr/include/x86_64-linux-gnu
