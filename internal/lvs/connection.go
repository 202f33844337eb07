// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// State is the state of a connection, by the name that ipvsadm -lc prints.
type State string

// The states of kernel IPVS (net/netfilter/ipvs/ip_vs_proto_tcp.c and _udp.c).
const (
	StateNone        State = "NONE"
	StateEstablished State = "ESTABLISHED"
	StateSynSent     State = "SYN_SENT"
	StateSynRecv     State = "SYN_RECV"
	StateFinWait     State = "FIN_WAIT"
	StateTimeWait    State = "TIME_WAIT"
	StateClose       State = "CLOSE"
	StateCloseWait   State = "CLOSE_WAIT"
	StateLastAck     State = "LAST_ACK"
	StateListen      State = "LISTEN"
	StateSynAck      State = "SYNACK"
	StateUDP         State = "UDP"
)

// Active tells whether a connection in this state counts as active: as kernel
// 6.1 counts (tcp_state_active_table), so a UDP connection never is.
func (s State) Active() bool {
	switch s {
	case StateEstablished, StateSynSent, StateSynRecv, StateSynAck:
		return true
	}
	return false
}

// Connection keeps one client flow on one real server.
type Connection struct {
	Protocol   Protocol       `json:"protocol"`
	Client     netip.AddrPort `json:"client"`
	Virtual    netip.AddrPort `json:"virtual"`
	RealServer netip.AddrPort `json:"real_server"`
	State      State          `json:"state"`
	// Expires is the time left if no packet comes, in whole quarter seconds.
	Expires Duration `json:"expires_seconds"`
}

// Timeouts are the three that ipvsadm --set changes. Zero means "as it is".
type Timeouts struct {
	TCP    Duration `json:"tcp_seconds,omitzero"`     // of ESTABLISHED, default 900 s
	TCPFin Duration `json:"tcp_fin_seconds,omitzero"` // of FIN_WAIT, default 120 s
	UDP    Duration `json:"udp_seconds,omitzero"`     // default 300 s
}

// MaxTimeout is the largest timeout, 31 days, as kernel IPVS has for
// persistence; it keeps every expiry within the data plane's 32-bit clock.
const MaxTimeout = 31 * 24 * time.Hour

// DefaultTimeouts are kernel IPVS's.
func DefaultTimeouts() Timeouts {
	return Timeouts{TCP: Duration(900 * time.Second), TCPFin: Duration(120 * time.Second), UDP: Duration(300 * time.Second)}
}

// Merge returns t with the zero fields taken from old.
func (t Timeouts) Merge(old Timeouts) Timeouts {
	pick := func(a, b Duration) Duration {
		if a == 0 {
			return b
		}
		return a
	}
	return Timeouts{TCP: pick(t.TCP, old.TCP), TCPFin: pick(t.TCPFin, old.TCPFin), UDP: pick(t.UDP, old.UDP)}
}

// TimeoutStep is what timeouts are counted in: the data plane's clock goes in quarter
// seconds.
const TimeoutStep = time.Second / 4

// Validate returns ErrInvalid if a timeout is negative, above MaxTimeout or between
// two TimeoutSteps.
func (t Timeouts) Validate() error {
	for _, d := range []Duration{t.TCP, t.TCPFin, t.UDP} {
		if time.Duration(d)%TimeoutStep != 0 {
			return fmt.Errorf("timeout %s is not a multiple of %s: %w", time.Duration(d), TimeoutStep, ErrInvalid)
		}
		if d < 0 || time.Duration(d) > MaxTimeout {
			return fmt.Errorf("timeout %s is not between 0 and %s: %w", time.Duration(d), MaxTimeout, ErrInvalid)
		}
	}
	return nil
}

// Duration is a time.Duration that JSON carries as a number of seconds.
type Duration time.Duration

// Seconds returns the duration in seconds.
func (d Duration) Seconds() float64 { return time.Duration(d).Seconds() }

// MarshalJSON writes seconds, with a fraction if there is one.
func (d Duration) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%g", d.Seconds()), nil
}

// UnmarshalJSON reads a number of seconds.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var seconds float64
	if _, err := fmt.Sscanf(string(text), "%g", &seconds); err != nil {
		return fmt.Errorf("duration %q is not a number of seconds", text)
	}
	*d = Duration(seconds * float64(time.Second))
	return nil
}

// States lists the states that a connection can be in.
func States() []State {
	return []State{
		StateNone, StateEstablished, StateSynSent, StateSynRecv, StateFinWait, StateTimeWait,
		StateClose, StateCloseWait, StateLastAck, StateListen, StateSynAck, StateUDP,
	}
}

// ParseState reads the name of a state in either case. "" is any.
func ParseState(text string) (State, error) {
	state := State(strings.ToUpper(text))
	if state != "" && !slices.Contains(States(), state) {
		return "", fmt.Errorf("state %q is not one of %s", text, strings.Trim(fmt.Sprint(States()), "[]"))
	}
	return state, nil
}
