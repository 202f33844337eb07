// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Activated returns the unix socket that systemd has opened for us, or nil if it has
// not. It is systemd's: closing it leaves its file.
func Activated() (net.Listener, error) {
	listeners, err := activation.Listeners()
	switch {
	case err != nil:
		return nil, fmt.Errorf("take the socket from systemd: %w", err)
	case len(listeners) == 0:
		return nil, nil
	case len(listeners) == 1:
		if unix, is := listeners[0].(*net.UnixListener); is && unix != nil {
			return unix, nil
		}
	}
	err = fmt.Errorf("systemd has opened %d sockets for us, not one unix stream socket; see ListenStream= in the .socket unit", len(listeners))
	for _, l := range listeners {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return nil, err
}
