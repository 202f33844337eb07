// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"lvx/internal/lvs"
)

// auditBytes is the size at which audit.jsonl becomes audit.1.jsonl. The one that
// had that name before is gone then.
const auditBytes = 16 << 20

// ErrAudit is returned by Verify when the audit log is not as it was written.
var ErrAudit = errors.New("the audit log was cut or edited")

// auditLine is a line of the log.
type auditLine struct {
	lvs.HistoryEntry
	// Chain is the SHA-256, in hex, of the line before without its newline; "" in
	// the first line there ever was.
	Chain string `json:"chain"`
}

// audit is the audit log: audit.jsonl, and before it audit.1.jsonl.
type audit struct {
	disk disk
	dir  string

	mu     sync.Mutex // guards what follows, and the files
	last   string     // the chain for the next line
	synced string     // the chain as it was when the log was synced last
}

// Record appends an entry to the audit log. With an error the log is as it was.
func (s *Store) Record(e lvs.HistoryEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.makeRoom()
	if err == nil {
		err = s.audit.append(e)
	}
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// makeRoom begins a new file when the log is long. First it writes how far the log
// goes into the state: the line that the state knows may otherwise be gone with
// the older file later, and look as if it had been cut off.
func (s *Store) makeRoom() error {
	size, err := s.audit.size()
	if err != nil || size < auditBytes {
		return err
	}
	if err := s.audit.sync(); err != nil {
		return err
	}
	if err := s.write("state.json", s.state, s.applies); err != nil {
		return err
	}
	if err := s.disk.remove(s.path("recent.json")); err != nil { // has the older end of the log
		return err
	}
	return s.audit.rotate()
}

// History returns the last entries of the audit log that are kept, oldest first;
// with 0 all. A last line that was torn is left out, one that cannot be read
// otherwise is an entry that says so.
func (s *Store) History(limit int) ([]lvs.HistoryEntry, error) {
	lines, err := s.audit.tail(limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	entries := make([]lvs.HistoryEntry, 0, len(lines))
	for _, text := range lines {
		var line auditLine
		if err := json.Unmarshal(text, &line); err != nil {
			line.HistoryEntry = lvs.HistoryEntry{Result: fmt.Sprintf("this line of the audit log is damaged: %v", err)}
		}
		entries = append(entries, line.HistoryEntry)
	}
	return entries, nil
}

// Verify tells whether the audit log is as it was written.
//
// Returns ErrAudit, and which line does not follow from the one before it.
func (s *Store) Verify() error {
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	chain, err := s.audit.verify()
	if err == nil && chain != s.audit.last {
		err = errEnd
	}
	return err
}

// open finds the end of the log, and cuts off a last line that was torn. It returns
// what Verify would.
func (a *audit) open() error {
	if err := a.mend(); err != nil {
		return err
	}
	chain, err := a.verify()
	a.last = chain
	if errors.Is(err, errEnd) {
		a.last = a.synced // so the next line shows for ever that something was before it
	}
	return err
}

// mend cuts off the end of audit.jsonl that is no whole line. Where that is not
// possible nothing can be appended either, and readers leave it out.
func (a *audit) mend() error {
	text, err := os.ReadFile(a.current())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if whole := bytes.LastIndexByte(text, '\n') + 1; whole < len(text) && a.disk.step("truncate", a.current()) == nil {
		_ = os.Truncate(a.current(), int64(whole))
	}
	return nil
}

// errEnd is the ErrAudit of a log that lacks the line which was synced last.
var errEnd = fmt.Errorf("audit.jsonl: the last lines are missing: %w", ErrAudit)

// verify follows the chain and returns its end.
func (a *audit) verify() (string, error) {
	chain, ends, first := "", a.synced == "", true
	var broken error
	for _, path := range []string{a.older(), a.current()} {
		lines, err := readLines(path)
		if err != nil {
			return chain, err
		}
		for i, text := range lines {
			// What was before the first line of audit.1.jsonl is gone rightly.
			follows := bytes.HasSuffix(text, fmt.Appendf(nil, `,"chain":%q}`, chain)) || first && path == a.older()
			if broken == nil && !follows {
				broken = fmt.Errorf("%s: line %d does not follow from the one before it: %w", filepath.Base(path), i+1, ErrAudit)
			}
			first = false
			chain = chainOf(text)
			ends = ends || chain == a.synced
		}
	}
	if broken == nil && !ends {
		broken = errEnd
	}
	return chain, broken
}

func chainOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// append writes a line.
func (a *audit) append(e lvs.HistoryEntry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	text, err := json.Marshal(auditLine{e, a.last})
	if err != nil {
		return err
	}
	if err := a.write(append(text, '\n')); err != nil {
		return err
	}
	a.last = chainOf(text)
	return nil
}

func (a *audit) size() (int64, error) {
	info, err := os.Stat(a.current())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// rotate makes audit.jsonl audit.1.jsonl.
func (a *audit) rotate() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.disk.rename(a.current(), a.older())
}

// write appends to the file, all or nothing.
func (a *audit) write(text []byte) error {
	if err := a.disk.step("append", a.current()); err != nil {
		return err
	}
	size, err := a.size()
	if err != nil {
		return err
	}
	file, err := os.OpenFile(a.current(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err != nil {
		err = errors.Join(err, file.Truncate(size))
	}
	return errors.Join(err, file.Close())
}

// sync makes the log durable.
func (a *audit) sync() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.synced == a.last {
		return nil
	}
	if err := a.disk.sync(a.current()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	a.synced = a.last
	return nil
}

// head returns the chain of the log as far as it is durable.
func (a *audit) head() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced
}

// tail returns the last lines; with 0 all.
func (a *audit) tail(limit int) ([][]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	lines, err := readLines(a.current())
	if err != nil {
		return nil, err
	}
	if limit == 0 || len(lines) < limit {
		older, err := readLines(a.older())
		if err != nil {
			return nil, err
		}
		lines = slices.Concat(older, lines)
	}
	if limit > 0 && len(lines) > limit {
		lines = lines[len(lines)-limit:]
	}
	return lines, nil
}

// readLines returns the whole lines of a file without their newlines; none if there
// is no file.
func readLines(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	lines := bytes.Split(text, []byte("\n"))
	return lines[:len(lines)-1], nil // the last has no newline
}

func (a *audit) current() string { return filepath.Join(a.dir, "audit.jsonl") }

func (a *audit) older() string { return filepath.Join(a.dir, "audit.1.jsonl") }
