// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestListenMakesDirectoryAndSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "lvx", "default.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestListenRefusesASecondDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = Listen(path)
	if !errors.Is(err, ErrRunning) || err.Error() != "instance default is already running (socket "+path+")" {
		t.Errorf("got %v", err)
	}
}

// A socket that systemd holds has no lock beside it.
func TestListenRefusesASocketSomebodyElseHas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default.sock")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Listen(path); !errors.Is(err, ErrRunning) {
		t.Errorf("got %v", err)
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as after kill -9
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
}

// Nobody dials the socket that somebody listens on, for systemd would start a daemon.
func TestRemoveUnused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default.sock")
	held, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	held.SetUnlinkOnClose(false)
	for _, listening := range []bool{true, false} {
		if err := RemoveUnused(path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); (err == nil) != listening {
			t.Errorf("listening %v: %v", listening, err)
		}
		if err := held.SetDeadline(time.Now()); listening && err == nil {
			if c, err := held.Accept(); err == nil {
				c.Close()
				t.Error("somebody dialled")
			}
			held.Close()
		}
	}
	if err := RemoveUnused(path); err != nil {
		t.Errorf("nothing there: %v", err)
	}
}

func TestListenLeavesOtherFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "default.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(path)
	if err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if _, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "--socket") {
		t.Errorf("a path too long: %v", err)
	}
}
