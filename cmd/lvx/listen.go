// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"

	"lvx/internal/lvs"
	"lvx/internal/server"
)

// listeners are the doors of the daemon.
type listeners struct {
	api     []net.Listener // the unix socket first
	metrics net.Listener   // nil if nobody asked for it
}

func (l *listeners) close() {
	for _, door := range append(l.api, l.metrics) {
		if door != nil {
			_ = door.Close() // mostly again
		}
	}
}

// listen opens the doors. Without the unix socket nobody could come in; what is closed
// besides is said, and the director goes on without it.
func listen(o daemonOptions, s lvs.Settings) (l *listeners, closed []lvs.Warning, err error) {
	l = &listeners{}
	socket, err := server.Activated() // by systemd
	if err == nil && socket == nil {
		socket, err = server.Listen(o.socket)
	}
	if err != nil {
		return l, nil, err
	}
	l.api = append(l.api, socket)
	if s.API.Listen != "" {
		secure, err := server.ListenTLS(s.API)
		if err != nil {
			closed = append(closed, notServed("api.listen", err))
		} else {
			l.api = append(l.api, secure)
		}
	}
	if s.Metrics.Listen != "" {
		if l.metrics, err = server.ListenMetrics(s.Metrics); err != nil {
			closed = append(closed, notServed("metrics.listen", err))
		}
	}
	return l, closed, nil
}

func notServed(setting string, err error) lvs.Warning {
	return lvs.Warning{Object: setting, Text: "not served: " + err.Error(), Fix: "mend it and restart lvx director (forwarding goes on meanwhile)"}
}
