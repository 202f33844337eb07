// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/safchain/ethtool"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// queues gives the director's wire two queues: what a CPU sends comes in by the
// queue of its number, and XDP runs on that CPU. It has to come before any XDP: a
// queue that a veth gets later has no program (seen on 6.18).
func (b *bed) queues() {
	b.t.Helper()
	ends := map[*lab.Host]string{b.Host(lab.Director): "eth0", b.Host(lab.Switch): lab.Director}
	for _, set := range []func(*ethtool.Channels){
		func(c *ethtool.Channels) { c.RxCount = 2 }, // first: XDP wants as many as the other end sends by
		func(c *ethtool.Channels) { c.TxCount = 2 },
	} {
		for host, name := range ends {
			b.must("two queues for "+name, host.Do(func() error { return changeChannels(name, set) }))
		}
	}
	for cpu := range 2 {
		file := b.Host(lab.Switch).Path(fmt.Sprintf("/sys/class/net/%s/queues/tx-%d/xps_cpus", lab.Director, cpu))
		b.must("a queue for each CPU", os.WriteFile(file, fmt.Appendf(nil, "%x", 1<<cpu), 0))
	}
	b.must("face XDP", b.Host(lab.Switch).FaceXDP(lab.Director))
}

func changeChannels(name string, set func(*ethtool.Channels)) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	channels, err := tool.GetChannels(name)
	if err != nil {
		return err
	}
	set(&channels)
	_, err = tool.SetChannels(name, channels)
	return err
}

// byQueue is how many packets each queue of the director's eth0 gave to XDP.
func (b *bed) byQueue() (packets [2]uint64) {
	b.t.Helper()
	stats := b.driverStats()
	for queue := range packets {
		packets[queue] = stats[fmt.Sprintf("rx_queue_%d_xdp_packets", queue)]
	}
	return packets
}

// lead is how many frames one CPU may be before the other.
const lead = 4

// race posts a script from each of two CPUs, side by side, so that packets of the
// same flow are under way on both.
func (b *bed) race(scripts [2][][]byte) {
	b.t.Helper()
	var at [2]atomic.Int64
	var errs [2]error
	var wait sync.WaitGroup
	for cpu := range 2 {
		wait.Go(func() {
			errs[cpu] = b.post(cpu, scripts[cpu], func(n int) bool {
				at[cpu].Store(int64(n))
				for at[1-cpu].Load()+lead < int64(n) {
					runtime.Gosched()
				}
				return true
			})
			at[cpu].Store(1 << 62) // it waits for nobody any more
		})
	}
	wait.Wait()
	for _, err := range errs {
		b.must("send", err)
	}
}

// strangers are clients that nobody is, from a net to which there is no way.
func strangers(family, n int) (list []netip.AddrPort) {
	for i := range n {
		address := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		if family == 6 {
			// The number stands in all parts: half of one address and half of
			// another are none.
			address = netip.MustParseAddr(fmt.Sprintf("2001:db8:%[1]x:%[1]x:%[1]x:%[1]x:%[1]x:%[1]x", i))
		}
		list = append(list, netip.AddrPortFrom(address, uint16(1024+i)))
	}
	return list
}

// script sends these packets of each client, one client after the other.
func script(t *testing.T, clients []netip.AddrPort, v virtual, each ...lab.TCPFlags) (frames [][]byte) {
	for _, client := range clients {
		for _, flags := range each {
			frames = append(frames, frame(t, client, v, flags))
		}
	}
	return frames
}

// listed is what `lvx connections` lists of a service, by real server. Two of one
// client are a failure.
func (b *bed) listed(v virtual) (byServer map[string]lvs.Counts, total int) {
	b.t.Helper()
	byServer = map[string]lvs.Counts{}
	seen := map[netip.AddrPort]bool{}
	list := ask[lvs.Connection](b, fmt.Sprintf("connections --service %s/%s", v.network(), v))
	for _, c := range list {
		if seen[c.Client] {
			b.t.Errorf("%s has two connections to %s", c.Client, v)
		}
		seen[c.Client] = true
		one := lvs.Counts{Inactive: 1}
		if c.State.Active() {
			one = lvs.Counts{Active: 1}
		}
		byServer[c.RealServer.String()] = byServer[c.RealServer.String()].Add(one)
	}
	return byServer, len(list)
}

// exact tells whether what ipvsadm counts of a service is what is listed; both are
// in the text.
func (b *bed) exact(v virtual) (bool, string) {
	b.t.Helper()
	listed, _ := b.listed(v)
	counted := map[string]lvs.Counts{}
	for name, n := range b.numbers(v, "") {
		if len(n) == 3 && n[1]+n[2] > 0 {
			counted[name] = lvs.Counts{Active: uint32(n[1]), Inactive: uint32(n[2])}
		}
	}
	text := fmt.Sprintf("ipvsadm counts %v, listed are %v", counted, listed)
	return fmt.Sprint(counted) == fmt.Sprint(listed), text
}

// TestOneFlowFromTwoQueues sends the same flows by two queues, on two CPUs, at the
// same time: the SYN and its repetition, data while a RST is under way, a SYN that
// opens anew. Connections of real sockets are under way as well, whose packets come
// by whichever queue. No flow has two connections, all counts are exact, and every
// packet has a reason.
func TestOneFlowFromTwoQueues(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	const flows = 3000
	b := newBed(t, lab.Options{XDPHosts: []string{}}) // not yet: see queues
	_ = b.frames()                                    // at this rate a capture would lose some itself
	b.queues()
	b.start(b.Host(lab.Director), "--interface", "eth0")
	b.join(4)
	b.add(tcp(4, 8080), "wlc", 1, 1)
	driver, reasons := b.settled()
	before := b.byQueue()
	l := b.load(tcp(4, 8080), 10)
	for _, family := range families {
		clients := strangers(family, flows)
		for _, v := range []virtual{tcp(family, 80), udp(family, 53)} {
			b.do("ipvsadm -A %s -s wlc", v.option())
			for _, h := range b.RealServers() {
				b.do("ipvsadm -a %s -r %s -g", v.option(), v.on(h))
			}
			b.raceFlows(v, clients)
		}
	}
	b.check(l)
	driverAfter, reasonsAfter := b.settled()
	if seen, counted := driverAfter-driver, sum(reasonsAfter)-sum(reasons); seen != counted {
		t.Errorf("XDP got %d packets, %d have a reason: %v", seen, counted, reasonsAfter)
	}
	after := b.byQueue()
	first, second := after[0]-before[0], after[1]-before[1]
	t.Logf("%d and %d packets by the two queues, %d contended", first, second, reasonsAfter["CONTENDED"])
	if min(first, second) < max(first, second)/2 {
		t.Error("one of the queues is hardly used")
	}
	for _, name := range []string{"INTERNAL", "TABLE_FULL", "STATELESS"} {
		if reasonsAfter[name] != reasons[name] {
			t.Errorf("%d packets were %s", reasonsAfter[name]-reasons[name], name)
		}
	}
}

// raceFlows opens a connection of each client from both CPUs, and then ends it on one
// while the other goes on and opens it anew.
func (b *bed) raceFlows(v virtual, clients []netip.AddrPort) {
	b.t.Helper()
	open := script(b.t, clients, v, lab.SYN, lab.SYN, lab.ACK, lab.ACK|lab.PSH)
	b.race([2][][]byte{open, open})
	if ok, text := b.exact(v); !ok {
		b.t.Errorf("%s: %s", v, text)
	}
	_, total := b.listed(v)
	b.t.Logf("%s/%s: %d contended after the opening", v.network(), v, b.reasons()["CONTENDED"])
	made := b.numbers(v, "--stats --exact")[v.String()][0]
	if total != len(clients) || made != uint64(len(clients)) {
		b.t.Errorf("%s: %d flows were opened, %d connections were made, %d are listed", v, len(clients), made, total)
	}
	if v.flag == "-u" {
		return
	}
	b.race([2][][]byte{
		script(b.t, clients, v, lab.ACK|lab.RST, lab.SYN, lab.ACK, lab.FIN|lab.ACK),
		script(b.t, clients, v, lab.ACK|lab.PSH, lab.SYN, lab.FIN|lab.ACK, lab.ACK),
	})
	// Nothing is over yet: the shortest idle time is that of CLOSE, ten seconds.
	ok, text := b.exact(v)
	if !ok {
		b.t.Errorf("%s after RST: %s", v, text)
	}
	if _, total := b.listed(v); total != len(clients) {
		b.t.Errorf("%s after RST: %d flows, %d are listed", v, len(clients), total)
	}
	b.t.Logf("%s: %s; %d contended in all", v, text, b.reasons()["CONTENDED"])
}
