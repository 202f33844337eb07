// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"time"
)

// ServerCommand is the hidden command that a real server's web server runs as.
const ServerCommand = "lab-http"

// Answer is what the web server says to every request.
type Answer struct {
	RealServer string         `json:"real_server"` // who answers
	Client     netip.AddrPort `json:"client"`      // whom it sees asking
}

// RunServer is a web server; args are its name and the address to listen at.
// It does not return unless it cannot listen.
func RunServer(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: lab-http NAME ADDRESS:PORT")
	}
	server := &http.Server{
		Addr:              args[1],
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			client, _ := netip.ParseAddrPort(r.RemoteAddr)
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(Answer{RealServer: args[0], Client: client}) // the client went
		}),
	}
	return server.ListenAndServe()
}
