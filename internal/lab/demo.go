// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"lvx/internal/lvs"
)

// DemoOptions are what a demonstration does. The zero value works.
type DemoOptions struct {
	Lab      Options
	Method   lvs.Method // default dr, or that of Topology
	Topology string     // default the first that there is for Method
	Family   int        // 4 or 6, default 4
	Requests int        // default 100, at most 20000 (each takes a client port)
	// Progress is told each step before it is taken, if it is set.
	Progress func(step string)
}

// DemoResult is what a demonstration showed.
type DemoResult struct {
	Method            lvs.Method     `json:"method"`
	Family            int            `json:"family"`
	Requests          int            `json:"requests"`
	OK                int            `json:"ok"`
	Failed            int            `json:"failed"`
	ByRealServer      map[string]int `json:"by_real_server"`
	ClientAddressSeen bool           `json:"client_address_seen"`
	// Frames with the VIP as source, at the ports of the switch.
	RepliesThroughDirector int `json:"replies_through_director"`
	RepliesToRouter        int `json:"replies_to_router"`
	// RepliesFromRealServers are the frames that real servers sent, whatever
	// their source.
	RepliesFromRealServers int `json:"replies_from_real_servers"`
	// RepliesUntranslated reached the router with a real server's own address.
	RepliesUntranslated int `json:"replies_untranslated"`
	// RequestsTunnelled left the director inside another packet.
	RequestsTunnelled int      `json:"requests_tunnelled"`
	Topology          string   `json:"topology"`
	Service           string   `json:"service"`
	Client            string   `json:"client"`
	Commands          []Typed  `json:"commands"`
	Walk              []Hop    `json:"walk"`
	Errors            []string `json:"errors,omitempty"` // of the first few failed requests
	Drawing           string   `json:"-"`                // of the network
}

// ErrMethod says that there is no demonstration of a forwarding method yet.
var ErrMethod = errors.New("not in this version")

// errorsKept is how many failed requests are described.
const errorsKept = 3

// concurrency is how many requests are under way at the same time.
const concurrency = 8

// Validate sets defaults and tells what is wrong. Returns ErrMethod for a
// method that is known and not yet built.
func (o *DemoOptions) Validate() error {
	if err := o.setTopology(); err != nil {
		return err
	}
	if o.Family == 0 {
		o.Family = 4
	}
	if o.Requests == 0 {
		o.Requests = 100
	}
	switch {
	case o.Family != 4 && o.Family != 6:
		return fmt.Errorf("family %d is not 4 or 6", o.Family)
	case o.Requests < 1 || o.Requests > 20000:
		return fmt.Errorf("%d requests are not between 1 and 20000", o.Requests)
	}
	return nil
}

// setTopology makes method and topology agree.
func (o *DemoOptions) setTopology() error {
	if o.Topology == "" {
		return o.setMethod()
	}
	t, ok := FindTopology(o.Topology)
	switch {
	case !ok:
		return fmt.Errorf("there is no topology %q; lvx lab list lists them", o.Topology)
	case o.Method != "" && o.Method != t.Method:
		return fmt.Errorf("topology %s is for method %s, not %s", t.Name, t.Method, o.Method)
	}
	o.Method = t.Method
	return nil
}

func (o *DemoOptions) setMethod() error {
	if o.Method == "" {
		o.Method = lvs.DR
	}
	o.Topology = topologyOf(o.Method)
	switch {
	case o.Topology != "":
		return nil
	case o.Method == lvs.FullNAT:
		return fmt.Errorf("method %s: %w", o.Method, ErrMethod)
	}
	return fmt.Errorf("method %q is not one of dr, nat, tun, fullnat", o.Method)
}

func (o *DemoOptions) progress(step string) {
	if o.Progress != nil {
		o.Progress(step)
	}
}

// Demo does the main job once, from nothing: build, deploy, ask, look. The lab
// it returns is up unless there is an error; the caller closes or keeps it.
// A request that fails is no error, it is a result.
func Demo(ctx context.Context, o DemoOptions) (*Lab, *DemoResult, error) {
	if err := o.Validate(); err != nil {
		return nil, nil, err
	}
	o.progress("building client, router, switch, director and real servers")
	l, err := Build(ctx, o.Topology, o.Lab)
	if err != nil {
		return nil, nil, err
	}
	result, err := l.demonstrate(ctx, o)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, result, nil
}

func (l *Lab) demonstrate(ctx context.Context, o DemoOptions) (*DemoResult, error) {
	o.progress("starting lvx director, joining the real servers, adding the service")
	typed, err := l.Deploy(ctx, o.Family)
	if err != nil {
		return nil, err
	}
	o.progress(fmt.Sprintf("asking %d times", o.Requests))
	capture, err := l.Capture()
	if err != nil {
		return nil, err
	}
	tally, askErr := l.Ask(ctx, o.Requests)
	capture.Settle(ctx, l.served(), tally.OK+tally.Failed)
	frames, err := capture.Stop()
	if err := errors.Join(askErr, err); err != nil {
		return nil, err
	}
	replies := CountReplies(frames, l.served())
	return &DemoResult{
		Method: o.Method, Family: o.Family, Requests: o.Requests,
		OK: tally.OK, Failed: tally.Failed, ByRealServer: tally.ByRealServer,
		ClientAddressSeen:      tally.OK > 0 && tally.Disguised == 0,
		RepliesThroughDirector: replies.ThroughDirector, RepliesToRouter: replies.ToRouter,
		RepliesFromRealServers: replies.FromRealServers, RepliesUntranslated: replies.FromRealServerAddress,
		RequestsTunnelled: replies.Tunnelled, Topology: l.Name,
		Service: l.Service().String(), Client: l.Host(Client).Addr(o.Family).String(),
		Commands: typed, Walk: l.Walk(frames), Errors: tally.Errors,
		Drawing: l.Drawing(o.Family),
	}, nil
}

// Tally is what became of a number of requests.
type Tally struct {
	OK, Failed   int
	ByRealServer map[string]int // has every real server, also one that answered none
	Disguised    int            // answers by a server that saw another client address or port
	Errors       []string       // of the first few that failed
}

// Ask makes requests from the client to the service, each over a TCP
// connection of its own, some at the same time. Each may take 5 s. The error
// is that of ctx; failed requests are in the tally.
func (l *Lab) Ask(ctx context.Context, requests int) (Tally, error) {
	tally := Tally{ByRealServer: map[string]int{}}
	for _, h := range l.RealServers() {
		tally.ByRealServer[h.Name] = 0
	}
	var mu sync.Mutex // guards tally
	var wg sync.WaitGroup
	turns := make(chan struct{}, requests)
	for range requests {
		turns <- struct{}{}
	}
	close(turns)
	for range min(concurrency, requests) {
		wg.Go(func() {
			for range turns {
				if ctx.Err() != nil {
					return
				}
				answer, local, err := l.AskOnce(ctx)
				mu.Lock()
				tally.add(answer, local, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return tally, ctx.Err()
}

func (t *Tally) add(answer Answer, local netip.AddrPort, err error) {
	if err != nil {
		t.Failed++
		if len(t.Errors) < errorsKept {
			t.Errors = append(t.Errors, err.Error())
		}
		return
	}
	t.OK++
	t.ByRealServer[answer.RealServer]++
	if answer.Client != local {
		t.Disguised++
	}
}

// AskOnce makes one request from the client to the service, at most 5 s. It
// returns the answer and the client's own end of the connection.
func (l *Lab) AskOnce(ctx context.Context) (answer Answer, local netip.AddrPort, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := l.Host(Client).Dial(ctx, network, address)
			if err == nil {
				local, err = netip.ParseAddrPort(c.LocalAddr().String())
			}
			return c, err
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Service().String()+"/", nil)
	if err != nil {
		return answer, local, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return answer, local, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answer, local, fmt.Errorf("the answer's status is %s", response.Status)
	}
	return answer, local, json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&answer)
}
