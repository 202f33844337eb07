// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"sync/atomic"

	"lvx/internal/lvs"
)

// Arrange makes the services be listed in this order, the oldest first; packets do
// not care. One that is not there is passed over, and one that is not named comes
// before all that are.
func (p *Plane) Arrange(oldestFirst []lvs.ServiceKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range oldestFirst {
		if e := p.table.services[key]; e != nil {
			p.table.order++
			e.order = p.table.order
			atomic.StoreUint64(&p.arrays.services.items[e.id].Order, e.order)
		}
	}
	return nil
}
