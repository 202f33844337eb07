// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

func TestClientReadsWhatTheDirectorSays(t *testing.T) {
	f := &fake{
		status:    lvs.Status{Interfaces: []lvs.Interface{{Name: "eth0", Mode: lvs.XDPNative}}},
		services:  []lvs.ServiceStatus{web},
		history:   []lvs.HistoryEntry{{Time: morning, Generation: 41, Who: "a", What: "b", Result: lvs.Done}, {Time: morning, Generation: 42, Who: "c", What: "d", Result: lvs.Done}},
		revisions: []lvs.Revision{{Number: 7, Time: morning, Configuration: lvs.Configuration{Services: []lvs.Service{}}}},
		now:       lvs.Configuration{Services: []lvs.Service{{ServiceKey: webKey, Scheduler: lvs.MH, Flags: "mh-port", RealServers: []lvs.RealServer{}}}},
	}
	client := api.NewClient(start(t, f, nil))
	defer client.Close()
	ctx := t.Context()

	services, err := client.Services(ctx)
	same(t, err, f.services, services)

	realServers, err := client.RealServers(ctx)
	same(t, err, []api.RealServer{{Service: webKey, RealServerStatus: web.RealServers[0]}}, realServers)

	status, err := client.Status(ctx)
	same(t, err, "1.2.3 default eth0", fmt.Sprintf("%s %s %s", status.Version, status.Instance, status.Interfaces[0].Name))

	history, err := client.History(ctx, 1)
	same(t, err, f.history[1:], history)

	revisions, err := client.Revisions(ctx)
	same(t, err, f.revisions, revisions)

	now, generation, err := client.Configuration(ctx)
	same(t, err, f.now, now)
	same(t, nil, uint64(42), generation)
}

func TestFilters(t *testing.T) {
	mail := web
	mail.ServiceKey, mail.Name = mailKey, "mail"
	mail.RealServers = []lvs.RealServerStatus{{RealServer: lvs.RealServer{Address: netip.MustParseAddrPort("198.51.100.6:25"), Method: lvs.DR}}}
	path := start(t, &fake{services: []lvs.ServiceStatus{web, mail}}, nil)
	for query, want := range map[string]string{
		api.PathServices: "web mail",
		api.PathServices + "?service=tcp/192.0.2.1:25":         "mail",
		api.PathServices + "?service=udp/192.0.2.1":            "",
		api.PathServices + "?service=192.0.2.0/24":             "web mail",
		api.PathRealServers + "?real_server=198.51.100.6":      "25",
		api.PathRealServers + "?service=192.0.2.1:80":          "80",
		api.PathRealServers + "?real_server=198.51.100.0/24":   "80 25",
		api.PathRealServers + "?real_server=198.51.100.5%3A25": "",
	} {
		text := asked(t, path, question{method: "GET", path: query})
		var got []string
		for _, one := range []string{"web", "mail"} {
			if strings.Contains(text, `"name":"`+one+`"`) {
				got = append(got, one)
			}
		}
		for _, port := range []string{"80", "25"} {
			if strings.Contains(text, `,"address":"198.51.100.`) && strings.HasPrefix(query, api.PathRealServers) && strings.Contains(text, ":"+port+`","method"`) {
				got = append(got, port)
			}
		}
		if strings.Join(got, " ") != want || !strings.HasPrefix(text, "200 [") {
			t.Errorf("%s: want %q, got %s", query, want, text)
		}
	}
}

func TestEmptyListsAreLists(t *testing.T) {
	path := start(t, &fake{}, nil)
	for _, p := range []string{
		api.PathServices, api.PathRealServers, api.PathReasons, api.PathNeighbours, api.PathEvents, api.PathHistory, api.PathRevisions,
	} {
		same(t, nil, "200 []\n", asked(t, path, question{method: "GET", path: p}))
	}
	for _, p := range []string{api.PathStatus, api.PathConfiguration} {
		if text := asked(t, path, question{method: "GET", path: p}); strings.Contains(text, "null") || !strings.HasPrefix(text, "200 ") {
			t.Errorf("%s has a null: %s", p, text)
		}
	}
	same(t, nil, "200 ", asked(t, path, question{method: "GET", path: api.PathConnections}))
}

func TestRevision(t *testing.T) {
	path := start(t, &fake{revisions: []lvs.Revision{{Number: 7, Time: morning, Who: "root"}}}, nil)
	text := asked(t, path, question{method: "GET", path: api.PathRevisions + "/7"})
	same(t, nil, `200 {"revision":7,"generation":0,"time":"2026-11-21T06:30:00Z","who":"root","what":"","configuration":{"services":[]}}`+"\n", text)
	text = asked(t, path, question{method: "GET", path: api.PathRevisions + "/8"})
	same(t, nil, `404 {"code":"no_revision","message":"revision 8: there is no such revision"}`+"\n", text)
}

func TestFailureIsAnswered(t *testing.T) {
	path := start(t, &fake{err: errors.New("the map is gone"), connections: 1, breakAt: 1}, nil)
	for _, p := range []string{
		api.PathServices, api.PathRealServers, api.PathReasons, api.PathNeighbours, api.PathStatus,
		api.PathConnections, api.PathHistory, api.PathRevisions, api.PathRevisions + "/1",
	} {
		same(t, nil, `500 {"code":"internal","message":"the map is gone"}`+"\n", asked(t, path, question{method: "GET", path: p}))
	}
}
