// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// big makes a data plane anew that holds more than one system call reads.
func (r *rig) big() {
	r.t.Helper()
	r.Close()
	if err := r.right.Unload(); err != nil {
		r.t.Fatal(err)
	}
	r.reopen(Options{Connections: 4096, Services: 16384, RealServers: 131072, detached: true})
}

// What is read in batches is put together as it belongs.
func TestManyServices(t *testing.T) {
	const services, servers = 5000, 3
	r := newRig(t)
	r.big()
	for i := range services {
		if err := r.Put(numbered(i, servers, uint32(1+i))); err != nil {
			t.Fatal(err)
		}
	}
	sent := map[int]bool{0: true, 1364: true, 1365: true, 4095: true, 4096: true, services - 1: true}
	for i := range sent {
		s := numbered(i, servers, 1)
		r.hop(s.RealServers[0].Address.Addr(), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 9000})
		if verdict, _ := r.send(frame{vip: s.Address.String()}.bytes(t)); verdict != xdpTX {
			t.Fatalf("service %d: verdict %d", i, verdict)
		}
	}
	loaded, list := r.load(), r.list()
	if len(loaded) != services || len(list) != services {
		t.Fatalf("%d loaded, %d listed", len(loaded), len(list))
	}
	one := lvs.Stats{Connections: 1, InPackets: 1, InBytes: 40}
	for i := range services {
		at := services - 1 - i // the newest first
		if want := numbered(i, servers, uint32(1+i)); !loaded[at].Equal(want) {
			t.Fatalf("service %d: loaded %+v", i, loaded[at])
		}
		var want lvs.Stats
		if sent[i] {
			want = one
		}
		if s := list[at]; s.ServiceKey != loaded[at].ServiceKey || s.Stats != want || s.RealServers[0].Stats != want || s.RealServers[1].Stats != (lvs.Stats{}) {
			t.Errorf("service %d: listed %+v", i, s)
		}
	}
}

// While services change all can be read, and nothing looks as if somebody had
// tampered with it.
func TestReadersAndWriters(t *testing.T) {
	r := newRig(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for _, read := range []func() error{
		func() error { _, err := r.Services(); return err },
		func() error { _, err := r.Neighbours(); return err },
		func() error { r.reclaim(); return nil },
		func() error {
			services, err := r.Load()
			for _, s := range services {
				err = errors.Join(err, s.Validate())
			}
			return err
		},
		func() error {
			repaired, err := r.Repair()
			if len(repaired) > 0 {
				err = errors.Join(err, fmt.Errorf("repaired %q", repaired))
			}
			return err
		},
	} {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := read(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 1000 {
		s := numbered(i%7, i%11, uint32(i))
		s.Scheduler = lvs.Schedulers()[i%3]
		if err := r.Put(s); err != nil {
			t.Error(err)
		}
		if i%5 == 0 {
			if err := r.Delete(s.ServiceKey); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
}

// BenchmarkTenThousandServices gives the seconds that it takes to add ten thousand
// services of ten real servers one after the other, to list them, to change a
// weight in each, to take them over by a new daemon, and to delete all; by the clock
// and of the processors, which does not depend on what else the machine does.
func BenchmarkTenThousandServices(b *testing.B) {
	const services, servers = 10_000, 10
	for range b.N {
		r := newRig(b)
		r.big()
		measure := func(what string, step func() error) {
			b.Helper()
			start, cpu := time.Now(), cpuTime()
			if err := step(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(time.Since(start).Seconds(), "s/"+what)
			b.ReportMetric((cpuTime() - cpu).Seconds(), "cpu-s/"+what)
		}
		put := func(weight uint32) error {
			for i := range services {
				if err := r.Put(numbered(i, servers, weight)); err != nil {
					return err
				}
			}
			return nil
		}
		measure("add", func() error { return put(1) })
		measure("load", func() error { _, err := r.Load(); return err })
		measure("services", func() error { _, err := r.Services(); return err })
		measure("repair", func() error { _, err := r.Repair(); return err })
		measure("change", func() error { return put(2) })
		measure("adopt", func() error { return r.adopt() })
		measure("reclaim", func() error { r.reclaim(); return nil })
		measure("delete", func() error {
			for i := range services {
				if err := r.Delete(numbered(i, 0, 1).ServiceKey); err != nil {
					return err
				}
			}
			return nil
		})
		measure("free", func() error { r.reclaim(); return nil })
	}
}

// cpuTime is what the process has used of the processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// numbered returns the service of a number, with real servers of their own; the
// weight is that of the first.
func numbered(i, servers int, weight uint32) lvs.Service {
	s := lvs.Service{
		ServiceKey: parseKey(fmt.Sprintf("tcp 198.51.%d.%d:80", i/200, 1+i%200)),
		Scheduler:  lvs.RR,
	}
	for n := range servers {
		at := i*servers + n
		addr := netip.AddrFrom4([4]byte{10, byte(at >> 14 & 0x3f), byte(at >> 7 & 0x7f), byte(1 + at&0x7f)})
		s.RealServers = append(s.RealServers, lvs.RealServer{Address: netip.AddrPortFrom(addr, 80), Method: lvs.DR, Weight: 1})
	}
	if servers > 0 {
		s.RealServers[0].Weight = weight
	}
	return s
}
