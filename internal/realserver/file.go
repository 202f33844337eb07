// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileChange is the change of a file from what it has to text; nil removes it.
// The step has no text: the caller words it.
func fileChange(path string, text []byte) (change, error) {
	before, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		before, err = nil, nil
	}
	if err != nil {
		return change{}, err
	}
	c := change{step: Step{Object: path, Before: presence(before), After: presence(text)}}
	if bytes.Equal(before, text) && (before == nil) == (text == nil) {
		return c, nil
	}
	c.step.Changed = true
	var made []string
	c.do = func() (err error) {
		made, err = replaceFile(path, text)
		return err
	}
	c.undo = func() error {
		_, err := replaceFile(path, before)
		for _, dir := range made {
			os.Remove(dir) // stays if somebody else has begun to use it
		}
		return err
	}
	return c, nil
}

func presence(text []byte) string {
	if text == nil {
		return "absent"
	}
	return "present"
}

// replaceFile gives a file its text at once, or removes it if text is nil. It
// returns the directories it had to make, the innermost first. After a crash
// the file has the old text or the new.
func replaceFile(path string, text []byte) ([]string, error) {
	if text == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return nil, syncDirectory(filepath.Dir(path))
	}
	made, err := makeDirectory(filepath.Dir(path))
	if err == nil {
		err = writeFile(path, text)
	}
	if err != nil {
		for _, dir := range made {
			os.Remove(dir)
		}
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return made, nil
}

func writeFile(path string, text []byte) error {
	// The name begins with a dot, so that nobody takes it for configuration.
	file, err := os.CreateTemp(filepath.Dir(path), ".lvx-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails once renamed
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// makeDirectory makes a directory and those above it, and returns what it had
// to make, the innermost first.
func makeDirectory(dir string) ([]string, error) {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	return missing, os.MkdirAll(dir, 0o755)
}

func syncDirectory(dir string) error {
	file, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// lockDirectory waits for the lock of a directory, which it makes if it is
// missing. Closing the file unlocks.
func lockDirectory(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make room for the state: %w", err)
	}
	file, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock the state: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock the state in %s: %w", dir, err)
	}
	return file, nil
}
