// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	directoryMode = 0o750
	fileMode      = 0o640
	// unfinished ends the name of a file that is being written. The name begins with
	// a dot as well, so that nobody takes it for anything.
	unfinished = ".unfinished"
)

// disk changes files. Between any two of its steps the process may end.
type disk struct {
	// before is called with every step, before it is taken; if it returns an error
	// the step fails with it. Tests look at the directory there. It may be nil.
	before func(step, path string) error
}

func (d disk) step(name, path string) error {
	if d.before == nil {
		return nil
	}
	if err := d.before(name, path); err != nil {
		return &fs.PathError{Op: name, Path: path, Err: err}
	}
	return nil
}

// replaceDurably gives a file its text at once: whoever reads it sees the old text
// or the new, after a power failure too. When it returns without an error it is
// the new.
func (d disk) replaceDurably(path string, text []byte) error {
	if err := d.replace(path, text, true); err != nil {
		return err
	}
	return d.sync(filepath.Dir(path))
}

// replace gives a file its text by a rename. With an error the file is as it was.
// If the text is not synced, it may be lost, and the file with it, when the power
// fails.
func (d disk) replace(path string, text []byte, synced bool) error {
	file := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+unfinished)
	err := d.write(file, text)
	if err == nil && synced {
		err = d.sync(file)
	}
	if err == nil {
		err = d.rename(file, path)
	}
	if err != nil {
		_ = os.Remove(file)
	}
	return err
}

func (d disk) write(path string, text []byte) error {
	if err := d.step("write", path); err != nil {
		return err
	}
	return os.WriteFile(path, text, fileMode)
}

// sync makes a file, or what a directory says of its files, survive a power failure.
func (d disk) sync(path string) error {
	if err := d.step("sync", path); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func (d disk) rename(from, to string) error {
	if err := d.step("rename", to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// remove removes a file. It is no error if there is none.
func (d disk) remove(path string) error {
	if err := d.step("remove", path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// cause returns what went wrong with a file, without the path that the reader has
// been told already.
func cause(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	if link := (*os.LinkError)(nil); errors.As(err, &link) {
		return link.Err
	}
	return err
}
