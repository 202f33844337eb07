// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"lvx/internal/lab"
)

// TestWeightsUnderLoad changes weights and schedulers all the time, one real
// server at least keeping a weight above 0: every request is answered, and no
// connection ever meets another real server.
func TestWeightsUnderLoad(t *testing.T) {
	const changes = 120
	b := newBed(t, lab.Options{RealServers: 3})
	v := tcp(4, 80)
	b.deploy(v, "rr", 1, 1, 1)
	l := b.load(v, 20)
	schedulers := []string{"wrr", "lc", "wlc", "rr"}
	edit := func(h *lab.Host, weight int) { b.do("ipvsadm -e %s -r %s -g -w %d", v.option(), v.on(h), weight) }
	for i := range changes {
		steady := i / 30 % 2 // rs1 and rs2 take turns at staying above 0
		if i%30 == 0 {
			edit(b.RealServers()[0], 3)
			edit(b.RealServers()[1], 3)
		}
		weight := i * 7 % 6
		if i%3 == steady {
			weight = 1 + weight%5
		}
		edit(b.RealServers()[i%3], weight)
		if i%5 == 0 {
			b.do("ipvsadm -E %s -s %s", v.option(), schedulers[i/5%len(schedulers)])
		}
	}
	b.check(l)
	if len(l.byName) != 3 {
		t.Errorf("requests went to %v only", l.byName)
	}
	checkFaithful(t, b.frames(), v)
}

// checkFaithful follows every client port through the frames that the director
// sends: from a SYN to the next, all go to one real server.
func checkFaithful(t *testing.T, frames []lab.Frame, v virtual) {
	t.Helper()
	servers := map[string]lab.MAC{}
	followed := 0
	for _, f := range frames {
		p := f.Decode()
		if f.Port != lab.Director || f.ToHost || p.Destination != v.AddrPort {
			continue
		}
		client := p.Source.String()
		server, known := servers[client]
		if !known || p.Flags == lab.SYN {
			servers[client] = p.DestinationMAC
			continue
		}
		followed++
		if server != p.DestinationMAC {
			t.Errorf("client %s was with %s and is sent to %s", client, server, p.DestinationMAC)
			servers[client] = p.DestinationMAC
		}
	}
	if followed == 0 {
		t.Error("there are no frames to follow")
	}
}

// TestConnectionOutlivesItsServer takes a service or a real server away under a
// connection and puts it back: meanwhile packets are dropped, and then it goes on
// where it was, as in kernel IPVS.
func TestConnectionOutlivesItsServer(t *testing.T) {
	for _, family := range families {
		b := newBed(t, lab.Options{})
		v := tcp(family, 80)
		b.deploy(v, "rr", 1, 1)
		talks := []*talk{b.call(v), b.call(v)}
		rules := b.do("ipvsadm -S -n")
		for _, c := range []struct {
			away, back, input string
			stays             string // the real server that stays
		}{
			{"ipvsadm -C", "ipvsadm -R", rules, ""},
			{"ipvsadm -C", "ipvsadm-restore", rules, ""},
			{"ipvsadm -D " + v.option(), "ipvsadm --restore", rules, ""},
			{
				fmt.Sprintf("ipvsadm -d %s -r %s", v.option(), v.on(b.Host("rs1"))),
				fmt.Sprintf("ipvsadm -a %s -r %s -g", v.option(), v.on(b.Host("rs1"))), "", "rs2",
			},
		} {
			b.do("%s", c.away)
			before := b.reasons()["SERVER_REMOVED"]
			var gone []*talk
			for _, k := range talks {
				if k.server == c.stays {
					b.must(c.away+": a connection of the server that stays", k.say("here"))
					continue
				}
				gone = append(gone, k)
				fmt.Fprintln(k, "while you were away")
			}
			eventually(t, patience, c.away+": packets are dropped as SERVER_REMOVED", func() bool {
				return b.reasons()["SERVER_REMOVED"] >= before+uint64(len(gone))
			})
			for _, k := range gone {
				if err := k.hear("", 10*time.Millisecond); err == nil || !isTimeout(err) {
					t.Errorf("family %d: %s: a connection hears %v", family, c.away, err)
				}
			}
			if _, said, err := try(t, b.Host(lab.Director), c.back, c.input); err != nil {
				t.Fatalf("%s: %v: %s", c.back, err, said)
			}
			for _, k := range gone {
				b.must(c.back+": what was sent meanwhile", k.hear("while you were away", patience))
				b.must(c.back+": what is sent now", k.say("and now"))
			}
			if after := b.do("ipvsadm -S -n"); after != rules && c.stays == "" {
				t.Errorf("family %d: %s made the rules\n%sof\n%s", family, c.back, after, rules)
			}
			for _, h := range b.RealServers() {
				if n := b.counts(v, h); n.Active != 1 || n.Inactive != 0 {
					t.Errorf("family %d: %s: %s has the connections %+v, want the one it had", family, c.back, h.Name, n)
				}
			}
		}
		checkFaithful(t, b.frames(), v)
	}
}

func isTimeout(err error) bool {
	timeout, is := err.(interface{ Timeout() bool })
	return is && timeout.Timeout()
}

// TestForgottenConnection lets a connection be idle past its timeout. Its next
// packet is no SYN and belongs to nothing: the director's kernel answers RST.
func TestForgottenConnection(t *testing.T) {
	for _, family := range families {
		b := newBed(t, lab.Options{})
		v := tcp(family, 80)
		b.deploy(v, "rr", 1)
		b.do("ipvsadm --set 1 0 0")
		k := b.call(v)
		eventually(t, 3*time.Second, "the idle connection ends", func() bool {
			return !strings.Contains(b.do("lvx connections"), k.LocalAddr().String())
		})
		eventually(t, 3*time.Second, "the idle connection is not counted", func() bool {
			n := b.counts(v, b.Host("rs1"))
			return n.Active+n.Inactive == 0
		})
		if err := k.say("hello?"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("family %d: a packet without a connection got %v, want a reset", family, err)
		}
		if n := b.reasons()["NO_CONNECTION"]; n == 0 {
			t.Errorf("family %d: NO_CONNECTION was not counted", family)
		}
		resets := 0
		for _, f := range b.frames() {
			if p := f.Decode(); p.Source == v.AddrPort && p.Flags&lab.RST != 0 && f.Port == lab.Director && !f.ToHost {
				resets++
			}
		}
		if resets == 0 {
			t.Errorf("family %d: the reset is not the director's", family)
		}
	}
}

// TestFirstConnection connects right after ipvsadm -a has returned, to a real
// server that nobody has spoken to: the first SYN has to arrive.
func TestFirstConnection(t *testing.T) {
	b := newBed(t, lab.Options{})
	b.start(b.Host(lab.Director), "--interface", "eth0")
	for _, family := range families {
		v := tcp(family, 80)
		b.join(family)
		b.do("ipvsadm -A %s -s rr", v.option())
		for _, h := range b.RealServers() {
			serve(t, h, v)
			b.do("ipvsadm -a %s -r %s -g", v.option(), v.on(h))
			b.must("the first words", b.call(v).say("at once"))
		}
	}
	frames := b.frames()
	for _, family := range families {
		if n := repeatedSYNs(frames, tcp(family, 80)); n != 0 {
			t.Errorf("family %d: %d SYNs had to be repeated", family, n)
		}
	}
}

// repeatedSYNs counts those that came to the director again.
func repeatedSYNs(frames []lab.Frame, v virtual) (repeated int) {
	seen := map[string]bool{}
	for _, f := range frames {
		p := f.Decode()
		if f.Port != lab.Director || !f.ToHost || p.Destination != v.AddrPort || p.Flags != lab.SYN {
			continue
		}
		key := fmt.Sprint(p.Source, p.Seq)
		if seen[key] {
			repeated++
		}
		seen[key] = true
	}
	return repeated
}
