// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// onSmallDisk runs do with a directory that is a file system of 256 KiB of its own.
// The mount is in a namespace that ends with the thread.
func onSmallDisk(t *testing.T, do func(dir string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir, finished := t.TempDir(), make(chan struct{})
	go func() {
		defer close(finished)
		runtime.LockOSThread() // never unlocked: the thread goes with its namespace
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k")); err != nil {
			t.Error(err)
			return
		}
		do(dir)
	}()
	<-finished
}

// On a disk that is really full every write fails with its path and cause, and what
// was there stays.
func TestFullDisk(t *testing.T) {
	onSmallDisk(t, func(dir string) {
		s, err := Open(Options{Dir: filepath.Join(dir, "default"), Encode: encode})
		if err != nil {
			t.Error(err)
			return
		}
		prepare(t, s)
		old := factsOf(t, s)
		large := revision("large")
		large.Configuration = configuration(1000, 10)
		if err := s.Begin(large); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.Dir) {
			t.Errorf("the error is %v", err)
		}
		if _, err := s.Keep(large); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the error is %v", err)
		}
		fill(dir)
		for err == nil { // the log's last block has room left
			err = s.Record(lvs.HistoryEntry{What: "more"})
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the error is %v", err)
		}
		for _, operation := range operations {
			err := operation.do(s, 1000)
			if operation.name != "drop" && operation.name != "record" && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: the error is %v", operation.name, err)
			}
		}
		now := factsOf(t, s)
		same(t, now.State, old.State)
		same(t, now.Good, old.Good)
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
	})
}

func fill(dir string) {
	file, err := os.Create(filepath.Join(dir, "ballast"))
	for err == nil {
		_, err = file.Write(make([]byte, 512))
	}
	file.Close()
}

// A disk that cannot be written to is no reason not to start.
func TestReadOnlyDisk(t *testing.T) {
	onSmallDisk(t, func(dir string) {
		s, err := Open(Options{Dir: dir, Encode: encode})
		if err != nil {
			t.Error(err)
			return
		}
		prepare(t, s)
		old := factsOf(t, s)
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=256k"); err != nil {
			t.Error(err)
			return
		}
		if s, err = Open(Options{Dir: dir, Encode: encode}); err != nil {
			t.Error(err)
			return
		}
		for _, operation := range operations {
			if err := operation.do(s, 1000); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: the error is %v", operation.name, err)
			}
		}
		same(t, factsOf(t, s), old)
	})
}
