// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultStore is where `lvx lab` records the lab that is up.
const DefaultStore = Store("/run/lvx/lab")

// Store is a directory that records a lab that outlives the process that built
// it, so that other processes find it: one file, NAME.json. One lab can be up.
type Store string

// The errors of a Store.
var (
	ErrNoLab   = errors.New("no lab is up; start one with: lvx lab up dr")
	ErrLabIsUp = errors.New("a lab is up already; end it with: lvx lab down")
)

// labRecord is the form of the file.
type labRecord struct {
	Name    string       `json:"name"`
	Family  int          `json:"family"`
	Created time.Time    `json:"created"`
	Hosts   []hostRecord `json:"hosts"`
}

type hostRecord struct {
	Name       string      `json:"name"`
	PID        int         `json:"pid"`
	Started    uint64      `json:"started_ticks"`
	Interfaces []Interface `json:"interfaces"`
}

func (s Store) file(name string) string { return filepath.Join(string(s), name+".json") }

// Reserve makes sure that no lab is up and that no other process brings one up
// until release. Returns ErrLabIsUp otherwise. What is left of a lab that
// ended without Down is forgotten.
func (s Store) Reserve() (release func(), err error) {
	if err := os.MkdirAll(string(s), 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(string(s), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	release = func() { lock.Close() } // which unlocks
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		release()
		return nil, fmt.Errorf("another lvx lab is at work (%s is locked)", lock.Name())
	}
	if err := s.forgetDead(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// forgetDead removes a record none of whose hosts is alive.
func (s Store) forgetDead() error {
	record, err := s.read()
	if errors.Is(err, ErrNoLab) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, h := range record.hosts() {
		if h.Running() {
			return ErrLabIsUp
		}
	}
	return os.Remove(s.file(record.Name))
}

// Keep records the lab and lets it live on without this process. The caller
// holds the reservation.
func (s Store) Keep(l *Lab) error {
	record := labRecord{Name: l.Name, Family: l.Family, Created: l.Created}
	for _, h := range l.hosts {
		record.Hosts = append(record.Hosts, hostRecord{h.Name, h.pid, h.started, h.Interfaces})
	}
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	if err := s.write(record.Name, append(text, '\n')); err != nil {
		return err
	}
	for _, h := range l.hosts {
		if err := h.holder.detach(); err != nil {
			return errors.Join(fmt.Errorf("host %s: detach: %w", h.Name, err), os.Remove(s.file(l.Name)))
		}
	}
	l.owned = false
	return nil
}

// write puts the file in place whole or not at all.
func (s Store) write(name string, text []byte) error {
	draft := s.file(name) + ".new"
	if err := os.WriteFile(draft, text, 0o644); err != nil {
		return err
	}
	return os.Rename(draft, s.file(name))
}

// read returns ErrNoLab if nothing is recorded.
func (s Store) read() (*labRecord, error) {
	files, err := filepath.Glob(s.file("*"))
	if err != nil || len(files) == 0 {
		return nil, ErrNoLab
	}
	text, err := os.ReadFile(files[0])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoLab
	}
	if err != nil {
		return nil, err
	}
	record := new(labRecord)
	if err := json.Unmarshal(text, record); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	return record, nil
}

func (r *labRecord) hosts() []*Host {
	var list []*Host
	for _, h := range r.Hosts {
		list = append(list, &Host{Name: h.Name, Interfaces: h.Interfaces, pid: h.PID, started: h.Started})
	}
	return list
}

// Open finds the lab that is up, with those of its hosts that are dead too: of
// these only the fields and Running can be used. Returns ErrNoLab if there is
// none. Close lets go of it.
func (s Store) Open() (*Lab, error) {
	record, err := s.read()
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: record.Name, Family: record.Family, Created: record.Created, hosts: record.hosts()}
	for _, h := range l.hosts {
		if err := h.open(); err != nil && h.Running() {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// Down ends the lab that is up and forgets it. Returns ErrNoLab if there is none.
func (s Store) Down() error {
	l, err := s.Open()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.end(); err != nil {
		return err
	}
	return os.Remove(s.file(l.Name))
}

// killStragglers kills what sits in the network of one of the hosts, though it
// did not start there, as what nsenter runs, and waits, at most 5 s, until
// nothing does. The networks are held open, so that their numbers cannot be
// those of others meanwhile.
func (l *Lab) killStragglers() error {
	networks := map[string]bool{}
	for _, h := range l.hosts {
		if h.spaces.net == nil {
			continue
		}
		var stat unix.Stat_t
		if err := unix.Fstat(int(h.spaces.net.Fd()), &stat); err != nil {
			return err
		}
		networks[fmt.Sprintf("net:[%d]", stat.Ino)] = true
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pids := processesIn(networks)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %d do not end", pids)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
	}
}

// processesIn returns the processes, save this one, that sit in one of these
// networks ("net:[4026531840]").
func processesIn(networks map[string]bool) []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
		if network, err := os.Readlink(link); err == nil && networks[network] && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
