// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"lvx/internal/sched"
)

// initSecret reads the secret of the instance, or makes one: the first time, and
// after a daemon that was killed before it had. It never changes, for the clients
// of mh would change their real servers with it.
func (p *Plane) initSecret() error {
	var raw bpfSecret
	if err := p.objects.Secrets.Lookup(uint32(0), &raw); err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	if raw.Key == ([2]uint64{}) {
		var bytes [16]byte
		_, _ = rand.Read(bytes[:]) // never fails
		raw.Key = [2]uint64{binary.NativeEndian.Uint64(bytes[:]), binary.NativeEndian.Uint64(bytes[8:])}
		if err := p.objects.Secrets.Put(uint32(0), raw); err != nil {
			return fmt.Errorf("write the secret: %w", err)
		}
	}
	p.secret = sched.Secret(raw.Key)
	return nil
}
