// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// netDir has the sysctls of networks. The kernel shows those of the network
// namespace of the reading thread.
const netDir = "/proc/sys/net"

// confDir has one directory per interface, and "all" and "default".
const confDir = netDir + "/ipv4/conf"

// all is the directory that counts for every interface, by the max rule:
// effective = max(conf/all, conf/IF).
const all = "all"

// rule is what one sysctl has to be so that only the director's MAC address
// gets known for the VIP.
type rule struct {
	key    string
	wanted int
	// good lists the effective values that do. Larger is not better: the kernel
	// takes an unknown value for 0.
	good []int
}

// rules are those of IPv4. IPv6 needs none: neighbour discovery does not
// answer for addresses of lo and asks with the address of the interface.
//
//   - arp_ignore: 1 and 2 answer only for addresses of the receiving interface,
//     8 answers for none at all. 3 hides addresses of scope host only, and an
//     address on lo has scope global; 4 to 7 are reserved and act as 0.
//   - arp_announce: 1 still asks for the gateway with the VIP as sender if both
//     are in one subnet, and the gateway learns from that.
func rules() []rule {
	return []rule{
		{key: "arp_ignore", wanted: 1, good: []int{1, 2, 8}},
		{key: "arp_announce", wanted: 2, good: []int{2}},
	}
}

func (r rule) holds(effective int) bool { return slices.Contains(r.good, effective) }

// sysctl is one value below net.ipv4.conf or net.ipv6.conf.
type sysctl struct {
	Six       bool   `json:"ipv6,omitempty"`
	Interface string `json:"interface"` // or "all", "default"
	Key       string `json:"key"`
}

// protocol is the directory that has the sysctls of a family.
func (s sysctl) protocol() string {
	if s.Six {
		return "ipv6"
	}
	return "ipv4"
}

// String returns the name as sysctl(8) takes it: a dot in an interface's name
// is written as a slash.
func (s sysctl) String() string {
	return "net." + s.protocol() + ".conf." + strings.ReplaceAll(s.Interface, ".", "/") + "." + s.Key
}

func (s sysctl) path() string {
	return filepath.Join(netDir, s.protocol(), "conf", s.Interface, s.Key)
}

// read returns the value. The error is os.ErrNotExist if the interface is gone.
func (s sysctl) read() (int, error) {
	text, err := os.ReadFile(s.path())
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s, err)
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s, err)
	}
	return value, nil
}

func (s sysctl) write(value int) error {
	file, err := os.OpenFile(s.path(), os.O_WRONLY, 0) // never O_CREATE: /proc makes no files
	if err != nil {
		return fmt.Errorf("set %s=%d: %w", s, value, err)
	}
	_, err = file.WriteString(strconv.Itoa(value))
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("set %s=%d: %w", s, value, err)
	}
	return nil
}

// set is the change of a sysctl from what it is to a value.
func (s sysctl) set(before, after int) change {
	return change{
		step: Step{
			Object: s.String(), Before: strconv.Itoa(before), After: strconv.Itoa(after), Changed: true,
			Text: fmt.Sprintf("%s %d → %d", s, before, after),
		},
		do:   func() error { return s.write(after) },
		undo: func() error { return s.write(before) },
	}
}

// effective is what one interface does under a rule.
type effective struct {
	sysctl
	own   int // conf/IF
	value int // max(conf/all, conf/IF)
}

// effectives returns what each interface but lo does under a rule if conf/all
// has this value. "default" is among them: interfaces made later start with it.
func effectives(key string, allValue int) ([]effective, error) {
	entries, err := os.ReadDir(confDir)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var list []effective
	for _, e := range entries {
		if e.Name() == all || e.Name() == loopback {
			continue
		}
		s := sysctl{Interface: e.Name(), Key: key}
		own, err := s.read()
		if errors.Is(err, os.ErrNotExist) {
			continue // the interface has gone since
		}
		if err != nil {
			return nil, err
		}
		list = append(list, effective{sysctl: s, own: own, value: max(own, allValue)})
	}
	return list, nil
}

// sysctlChanges returns what has to change so that a rule holds on every
// interface. conf/all is raised; an interface's own value is touched only
// where it is larger and wrong, since the larger of the two counts.
func sysctlChanges(r rule) ([]sysctlRecord, error) {
	s := sysctl{Interface: all, Key: r.key}
	now, err := s.read()
	if err != nil {
		return nil, err
	}
	var records []sysctlRecord
	allValue := now
	if !r.holds(now) {
		allValue = r.wanted
		records = append(records, sysctlRecord{sysctl: s, Before: now, After: r.wanted})
	}
	list, err := effectives(r.key, allValue)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if !r.holds(e.value) {
			records = append(records, sysctlRecord{sysctl: e.sysctl, Before: e.own, After: r.wanted})
		}
	}
	return records, nil
}

// checkEffective returns an error that names the first interface on which a
// rule does not hold.
func checkEffective() error {
	for _, r := range rules() {
		records, err := sysctlChanges(r)
		if err != nil {
			return err
		}
		for _, c := range records {
			return fmt.Errorf("%s is still %d after it was set to %d: something else sets it; see: lvx realserver status", c.sysctl, c.Before, c.After)
		}
	}
	return nil
}
