// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The stub proves the lab itself: in these tests lvx is the test program, whose
// director is the least that does direct routing. It gives a connection to rs1
// or rs2 by bit 1 of the client's port.

// runStub plays lvx or ipvsadm if the test program was started as one.
func runStub() {
	name := filepath.Base(os.Args[0])
	if !slices.Contains(programNames, name) || len(os.Args) < 2 {
		return
	}
	var err error
	switch {
	case name != "lvx":
		err = os.WriteFile("/run/ipvsadm", nil, 0o600)
	case os.Args[1] == "director":
		err = stubDirector()
	case os.Args[1] == "status":
		_, err = os.Stat("/run/ready")
	case os.Args[1] == "realserver":
		err = stubJoin(os.Args[3:])
	default:
		err = errors.New("the stub has no " + os.Args[1])
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}

// stubJoin does what of joining the network needs: --vip A puts it on lo, and
// with method nat --director A leads the way out.
func stubJoin(args []string) error {
	options := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		options[args[i]] = args[i+1]
	}
	if options["--method"] == "nat" {
		return stubRoute(netip.MustParseAddr(options["--director"]))
	}
	address := netip.MustParseAddr(options["--vip"])
	arp := []sysctl{{"ipv4/conf/all/arp_ignore", "1"}, {"ipv4/conf/all/arp_announce", "2"}}
	if err := setSysctls(arp); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return addAddresses(lo, []netip.Prefix{netip.PrefixFrom(address, address.BitLen())})
}

func stubRoute(gateway netip.Addr) error {
	everywhere := netip.PrefixFrom(gateway, 0).Masked()
	to := &net.IPNet{IP: everywhere.Addr().AsSlice(), Mask: net.CIDRMask(0, gateway.BitLen())}
	return netlink.RouteReplace(&netlink.Route{Dst: to, Gw: gateway.AsSlice()})
}

func stubDirector() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stub_dr", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: stubProgram(), Flags: unix.BPF_F_XDP_HAS_FRAGS,
	})
	if err != nil {
		return err
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetXdpFdWithFlags(eth0, program.FD(), unix.XDP_FLAGS_DRV_MODE); err != nil {
		return err
	}
	if err := os.WriteFile("/run/ready", nil, 0o600); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

// stubProgram sends TCP for the VIPs on by MAC address. All MAC addresses of
// the LAN differ in their last byte alone (see lanMAC).
func stubProgram() asm.Instructions {
	const pass, tx = 2, 3
	ethertype := func(t uint16) int32 { return int32(t>>8 | t&0xff<<8) } // as a little-endian load has it
	ip := vip4.As4()
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 14+40+4),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R5, asm.R2, 12, asm.Half),
		asm.JEq.Imm(asm.R5, ethertype(typeIPv6), "ipv6"),
		asm.JNE.Imm(asm.R5, ethertype(typeIPv4), "pass"),
		asm.LoadMem(asm.R5, asm.R2, 14+16, asm.Word),
		asm.JNE.Imm(asm.R5, int32(binary.LittleEndian.Uint32(ip[:])), "pass"),
		asm.LoadMem(asm.R0, asm.R2, 14+20+1, asm.Byte),
		asm.Ja.Label("send"),
		asm.LoadMem(asm.R5, asm.R2, 14+6, asm.Byte).WithSymbol("ipv6"),
		asm.JNE.Imm(asm.R5, protocolTCP, "pass"),
		asm.LoadMem(asm.R5, asm.R2, 14+24+14, asm.Half),
		asm.JNE.Imm(asm.R5, 0x0001, "pass"), // …:0100
		asm.LoadMem(asm.R0, asm.R2, 14+40+1, asm.Byte),
		asm.RSh.Imm(asm.R0, 1).WithSymbol("send"),
		asm.And.Imm(asm.R0, 1),
		asm.Add.Imm(asm.R0, 11), // rs1 ends in 11, rs2 in 12
		asm.StoreMem(asm.R2, 5, asm.R0, asm.Byte),
		asm.Mov.Imm(asm.R0, 1), // and the director in 1
		asm.StoreMem(asm.R2, 11, asm.R0, asm.Byte),
		asm.Mov.Imm(asm.R0, tx),
		asm.Return(),
		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
		asm.Return(),
	}
}
