// SPDX-License-Identifier: Apache-2.0

// Package cli is lvx's command line: one file per command. Nouns read, verbs
// change. Everything that concerns a running daemon goes over its socket
// (package api), like any other client; lab and realserver work without one.
//
// It is not for running the daemon, which is cmd/lvx.
package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/lvs"
)

// Env is the world as commands see it, so that tests can run them in-process.
type Env struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string
	// Terminal and ErrTerminal tell whether Out and Err are terminals: only there
	// colour is used, and progress is shown.
	Terminal, ErrTerminal bool

	socket   string           // --socket
	instance string           // --instance
	now      func() time.Time // nil is the machine's clock
}

// RuntimeDir holds the sockets, INSTANCE.sock each.
const RuntimeDir = "/run/lvx"

// DefaultInstance is the name of the instance when none is given.
const DefaultInstance = "default"

// Exit codes, as PRODUCT has them.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// ExitError makes a command end with a code of its own. Without a message
// nothing is printed.
type ExitError struct {
	Code    int
	Message string
}

// Error returns the message.
func (e *ExitError) Error() string { return e.Message }

// usageError is an error of the command line: exit 2.
func usageError(format string, a ...any) error {
	return &ExitError{Code: ExitUsage, Message: fmt.Sprintf(format, a...)}
}

// SocketPath returns the socket of the daemon meant: --socket, else
// LVX_SOCKET, else that of the instance.
func (e *Env) SocketPath() string {
	if e.socket != "" {
		return e.socket
	}
	if s := e.Getenv("LVX_SOCKET"); s != "" {
		return s
	}
	return filepath.Join(RuntimeDir, e.Instance()+".sock")
}

// Instance returns the name of the instance meant.
func (e *Env) Instance() string {
	if e.instance == "" {
		return DefaultInstance
	}
	return e.instance
}

// startCommand starts the daemon meant.
func (e *Env) startCommand() string {
	if e.instance == "" {
		return "lvx director"
	}
	return "lvx director --instance " + e.instance
}

// clock returns the time.
func (e *Env) clock() time.Time {
	if e.now == nil {
		return time.Now()
	}
	return e.now()
}

// client returns a client for the daemon meant.
func (e *Env) client() *api.Client { return api.NewClient(e.SocketPath()) }

// Run runs the command that args name and returns the process's exit code.
// extra commands are those that cannot live here (the daemon's own).
func Run(env *Env, args []string, extra ...*cobra.Command) int {
	root := env.Root(extra)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return ExitDone
	}
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		if exit.Message != "" {
			fmt.Fprintf(env.Err, "lvx: %s\n", exit.Message)
		}
		return exit.Code
	}
	if next := env.nextStep(err); next != "" {
		err = fmt.Errorf("%w; %s", err, next)
	}
	fmt.Fprintf(env.Err, "lvx: %s\n", err)
	return ExitFailed
}

// nextStep returns what to do about an error, or "".
func (e *Env) nextStep(err error) string {
	refusal := (*api.Error)(nil)
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return "start one with: " + e.startCommand()
	case errors.As(err, &refusal) && errors.Is(err, api.ErrDenied):
		return "run it as root, or join the group lvx-admin"
	case errors.Is(err, api.ErrDenied):
		return "run it as root, or join the group lvx"
	case errors.Is(err, lvs.ErrUnconfirmed):
		return "keep it with: lvx confirm, or take it back with: lvx rollback"
	case errors.Is(err, lvs.ErrNothingWaits):
		return "what was applied is in: lvx history"
	case errors.Is(err, lvs.ErrNoRevision):
		return "list them with: lvx history --revisions"
	case errors.Is(err, lvs.ErrGeneration):
		return "by whom is in: lvx history"
	case errors.Is(err, lvs.ErrFull):
		return "how full they are is in: lvx status"
	}
	return ""
}
