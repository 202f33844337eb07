#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the data plane's packet tests on Debian's own kernel (6.1, the oldest that
# lvx supports) in an emulated machine: no KVM, no network, no disk.
#
# usage: test/kernel/run.sh [test flags; by default a test of each kind]
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lvx-kernel
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$cache"

# The kernel is unpacked, never installed.
if [ ! -e "$cache/vmlinuz" ] || [ ! -e "$cache/veth.ko" ]; then
	newest() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1; }
	package=$(newest)
	[ -n "$package" ] || { apt-get update -q && package=$(newest); }
	[ -n "$package" ] || { echo "Debian's package lists have no linux-image-cloud-amd64" >&2; exit 1; }
	(cd "$work" && apt-get download -qq "$package" 2>/dev/null && dpkg -x "$package"_*.deb unpacked)
	cp "$work"/unpacked/lib/modules/*/kernel/drivers/net/veth.ko "$cache/veth.ko"
	cp "$work"/unpacked/boot/vmlinuz-* "$cache/vmlinuz.new"
	mv "$cache/vmlinuz.new" "$cache/vmlinuz"
fi

root=$work/root
mkdir -p "$root"
cp "$cache/veth.ko" "$root/"
CGO_ENABLED=0 go build -trimpath -o "$root/init" ./test/kernel/guest
CGO_ENABLED=0 go test -c -trimpath -o "$root/test" ./internal/dataplane
# What the kernel decides: does the program load, and does it do the same? An emulated
# machine takes seconds to load it, so a test of each kind is enough.
kinds='Settle|TestPackets|InsertDelete|TestStateless$|VLANs|MTUFits|TestRedirect$|Modes|SchedulersFollow|NATPackets|NATMaps|NATRefusals|ICMPErrorsBack|ICMPLeaves|TestTunnels$'
echo "${@:--test.run=$kinds -rapid.checks=20} -test.timeout=9m" >"$root/args"
(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$work/initrd"

timeout 660 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 2048 -smp 2 -nodefaults -no-user-config \
	-display none -nic none -no-reboot -kernel "$cache/vmlinuz" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off" -serial stdio </dev/null | tr -d '\r' | tee "$work/log"
grep -q '^guest: exit 0$' "$work/log"
