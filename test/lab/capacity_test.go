// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// TestConnectionsThatDoNotFit asks for more connections than there is memory for:
// the director says what it takes, what there is and what fits, and leaves nothing
// behind. What it says fits does.
func TestConnectionsThatDoNotFit(t *testing.T) {
	b := newBed(t, lab.Options{})
	h := b.Host(lab.Director)
	before := b.traces(h)
	// As in a container that shows its own memory: a small one.
	const available = 100_010 // kB
	b.must("write its memory", os.WriteFile(h.Path("/run/meminfo"), fmt.Appendf(nil, "MemTotal: 2097152 kB\nMemFree: 50000 kB\nMemAvailable: %d kB\n", available), 0o644))
	b.typeAt(h, "mount --bind /run/meminfo /proc/meminfo")

	const line = "lvx director --interface eth0 --connections"
	_, said, err := try(t, h, fmt.Sprintf("%s %d", line, lvs.MaxConnections), "")
	fits := regexp.MustCompile(`at most (\d+) connections fit`).FindStringSubmatch(said)
	if err == nil || fits == nil || !strings.Contains(said, "lower director.capacity.connections or --connections") || !strings.Contains(said, "97 MB of memory are available") {
		t.Fatalf("%v, it says %q", err, said)
	}
	if after := b.traces(h); len(after.pins)+len(after.managed) > 0 || after.program || fmt.Sprint(after.features) != fmt.Sprint(before.features) {
		t.Errorf("left behind: %+v", after)
	}
	b.start(h, "--interface", "eth0", "--connections", fits[1])
	if capacity := b.status().Connections.Capacity; fmt.Sprint(capacity) != fits[1] {
		t.Errorf("%s connections fit, the director has room for %d", fits[1], capacity)
	}
}
