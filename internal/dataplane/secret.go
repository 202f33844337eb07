// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"lvx/internal/sched"
)

// initSecrets reads the secrets of the instance, or makes them: the first time, and
// after a daemon that was killed before it had. They never change: the clients of
// mh would change their real servers with one, and nobody would find a connection
// any more with the other.
func (p *Plane) initSecrets() error {
	for use := range p.secrets {
		if err := p.initSecret(bpfSecretUse(use)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plane) initSecret(use bpfSecretUse) error {
	var raw bpfSecret
	if err := p.objects.Secrets.Lookup(use, &raw); err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	if raw.Key == ([2]uint64{}) {
		var bytes [16]byte
		_, _ = rand.Read(bytes[:]) // never fails
		raw.Key = [2]uint64{binary.NativeEndian.Uint64(bytes[:]), binary.NativeEndian.Uint64(bytes[8:])}
		if err := p.objects.Secrets.Put(use, raw); err != nil {
			return fmt.Errorf("write the secret: %w", err)
		}
	}
	p.secrets[use] = sched.Secret(raw.Key)
	return nil
}
