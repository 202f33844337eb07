// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// TestCountsEqualTheFrames compares active and inactive connections, asked for
// with ipvsadm in the middle of traffic and once in every pause of it, with a
// count of our own that knows nothing but the frames the director sent. When all
// timers have run out they have to be 0.
func TestCountsEqualTheFrames(t *testing.T) {
	const waves, period = 6, 4 * time.Second
	b := newBed(t, lab.Options{})
	b.join(4)
	b.start(b.Host(lab.Director), "--interface", "eth0", "--connections", "100000")
	b.do("ipvsadm --set 6 2 2")
	web, names := tcp(4, 80), udp(4, 53)
	b.add(web, "wlc", 1, 2)
	b.add(names, "rr", 1, 1)
	streams := make([]*talk, 10)
	for i := range streams {
		streams[i] = b.call(web)
	}
	var samples []sample
	beat := time.NewTicker(period)
	defer beat.Stop()
	for range waves {
		begin := <-beat.C
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.wave(web, names, streams)
		}()
		for under := true; under; {
			samples = append(samples, b.sample(web)...)
			select {
			case <-done:
				under = false
			default:
			}
		}
		// What its timer ends goes two or ten seconds after a wave, a quarter less or, by
		// the sweep, a little more than a second later. This is the time between waves
		// in which nothing goes.
		<-time.After(time.Until(begin.Add(600 * time.Millisecond)))
		samples = append(samples, b.sample(web)...)
		samples = append(samples, b.sample(names)...)
	}
	for _, k := range streams {
		k.Close()
	}
	eventually(t, 15*time.Second, "all counts are 0", func() bool {
		return b.sum(web) == lvs.Counts{} && b.sum(names) == lvs.Counts{}
	})
	if out := b.do("ipvsadm -Lnc"); len(out) > 200 {
		t.Errorf("connections are still listed:\n%s", out)
	}
	compare(t, observe(b.frames(), timeouts{tcp: 6 * time.Second, fin: 2 * time.Second, udp: 2 * time.Second}), samples, 2*waves)
}

// wave is a little of every kind of traffic.
func (b *bed) wave(web, names virtual, streams []*talk) {
	var wait sync.WaitGroup
	client := b.Host(lab.Client)
	for i, k := range streams {
		wait.Go(func() {
			if err := k.say("wave"); err != nil {
				b.t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	for i := range 30 {
		wait.Go(func() {
			v := web
			if i%3 == 0 {
				v = names
			}
			k, err := call(b.t.Context(), client, v)
			if err == nil {
				err = k.say("hello")
			}
			if err != nil {
				b.t.Errorf("%s %s: %v", v.network(), v, err)
				return
			}
			if i%5 == 1 && v == web {
				k.reset()
			} else {
				k.Close()
			}
		})
	}
	wait.Wait()
}

// sample is what ipvsadm told of a real server at some moment between from and to.
type sample struct {
	from, to time.Time
	service  virtual
	server   string // the switch's port
	counts   lvs.Counts
}

func (b *bed) sample(v virtual) (list []sample) {
	from := time.Now()
	numbers := b.numbers(v, "")
	to := time.Now()
	for _, h := range b.RealServers() {
		n := numbers[v.on(h).String()]
		list = append(list, sample{from, to, v, h.Name, lvs.Counts{Active: uint32(n[1]), Inactive: uint32(n[2])}})
	}
	return list
}

func (b *bed) sum(v virtual) (all lvs.Counts) {
	for _, s := range b.sample(v) {
		all = all.Add(s.counts)
	}
	return all
}

// compare holds the samples against the spans.
func compare(t *testing.T, spans []span, samples []sample, wantExact int) {
	t.Helper()
	exact, busy := 0, 0
	for _, s := range samples {
		least, most := bounds(spans, s)
		if c := s.counts; c.Active < least.Active || c.Active > most.Active || c.Inactive < least.Inactive || c.Inactive > most.Inactive {
			t.Errorf("%s %s %s: ipvsadm counts %+v, the frames %+v to %+v", s.from.Format("05.000"), s.service, s.server, c, least, most)
		}
		if least == most {
			exact++
		}
		if s.counts.Active > 0 && s.counts.Inactive > 0 {
			busy++
		}
	}
	t.Logf("%d samples, %d of them with one possible value, %d with active and inactive connections", len(samples), exact, busy)
	if exact < wantExact || busy < wantExact {
		t.Error("the samples show too little")
	}
}

// bounds is how many connections a real server had at any moment of a sample at
// least, and at most.
func bounds(spans []span, s sample) (least, most lvs.Counts) {
	one := map[bool]lvs.Counts{true: {Active: 1}, false: {Inactive: 1}}
	for _, p := range spans {
		if p.server != s.server || p.service != s.service.String() {
			continue
		}
		if !p.begun.After(s.from) && !p.ending.Before(s.to) {
			least = least.Add(one[p.active])
		}
		if !p.beginning.After(s.to) && !p.ended.Before(s.from) {
			most = most.Add(one[p.active])
		}
	}
	return least, most
}

// span is a time in which a connection counted as active, or as inactive: for
// certain from begun to ending, perhaps from beginning to ended.
type span struct {
	service, server  string
	active           bool
	beginning, begun time.Time
	ending, ended    time.Time
}

// A frame's time is that of the switch, a little after the director counted it. A
// timer runs in quarter seconds, and what it ended is counted until the sweep, which
// takes a second to come round.
const (
	frameLag = 20 * time.Millisecond
	timerLag = 250 * time.Millisecond
	sweepLag = 1200 * time.Millisecond
)

type timeouts struct{ tcp, fin, udp time.Duration }

// The states of a connection of which only the client's packets are seen, as far
// as this traffic gets (net/netfilter/ipvs/ip_vs_proto_tcp.c, input only).
type state string

const (
	none        state = ""
	synRecv     state = "SYN_RECV"
	established state = "ESTABLISHED"
	finWait     state = "FIN_WAIT"
	timeWait    state = "TIME_WAIT"
	closed      state = "CLOSE"
	datagrams   state = "UDP"
)

func (s state) active() bool { return s == synRecv || s == established }

func (t timeouts) of(s state) time.Duration {
	return map[state]time.Duration{
		synRecv: 60 * time.Second, established: t.tcp, finWait: t.fin, timeWait: 120 * time.Second,
		closed: 10 * time.Second, datagrams: t.udp,
	}[s]
}

// next is what a packet makes of a connection.
func next(s state, p lab.Packet) state {
	switch {
	case p.Protocol == 17:
		return datagrams
	case p.Flags&lab.RST != 0:
		if s != synRecv {
			return closed
		}
	case p.Flags&lab.SYN != 0:
		if s != established {
			return synRecv
		}
	case p.Flags&lab.FIN != 0:
		switch s {
		case established:
			return finWait
		case synRecv:
			return timeWait
		}
	case p.Flags&lab.ACK != 0:
		if s == synRecv {
			return established
		}
	}
	return s
}

// followed is a connection in the eyes of who sees the frames.
type followed struct {
	state state
	now   *span
}

// observe makes the spans of all connections from the frames that the director
// sent to real servers.
func observe(frames []lab.Frame, t timeouts) (all []span) {
	servers := map[lab.MAC]string{rsMAC(1): "rs1", rsMAC(2): "rs2"}
	flows := map[string]*followed{}
	var spans []*span
	for _, f := range frames {
		p := f.Decode()
		server, forwarded := servers[p.DestinationMAC]
		if f.Port != lab.Director || f.ToHost || !forwarded || p.Destination.Addr() != lab.VIP(4) {
			continue
		}
		key := fmt.Sprint(p.Protocol, p.Source, p.Destination)
		c := flows[key]
		if c == nil || c.now.ended.Before(f.Time) {
			c = &followed{state: none}
			flows[key] = c
		}
		was := c.state
		c.state = next(was, p)
		if reopened := p.Flags == lab.SYN && was != synRecv && was != established; c.now == nil || reopened || was.active() != c.state.active() {
			if c.now != nil {
				c.now.ending, c.now.ended = f.Time.Add(-frameLag), f.Time
			}
			c.now = &span{service: p.Destination.String(), server: server, active: c.state.active(), beginning: f.Time.Add(-frameLag), begun: f.Time}
			spans = append(spans, c.now)
		}
		timeout := t.of(c.state)
		c.now.ending, c.now.ended = f.Time.Add(timeout-timerLag-frameLag), f.Time.Add(timeout+sweepLag)
	}
	for _, s := range spans {
		all = append(all, *s)
	}
	return all
}
