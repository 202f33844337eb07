// SPDX-License-Identifier: Apache-2.0

// Package ipvsadm is the language of ipvsadm 1.31: its command line, listings,
// messages and save format, to and from the nouns of package lvs.
//
// It is pure: it writes to the io.Writer and reads from the io.Reader that it
// is given, asks Names for names, and does nothing else. It is not for doing
// what a command line asks for, which is package cli, nor for deciding whether
// a change is possible, which is the daemon. What ipvsadm knows and lvx does
// not do yet is checked as ipvsadm checks it, and then refused.
package ipvsadm

import "lvx/internal/lvs"

// Action is the kind of thing that a command line asks for.
type Action int

// The actions.
const (
	Change          Action = iota // make Command.Change
	ListServices                  // print services and real servers
	ListConnections               // print connections
	ListTimeouts                  // print the timeouts
	ListDaemons                   // print the synchronisation daemons
	Save                          // print the rules
	Restore                       // read rules from stdin
	Help                          // print Usage
	ShowVersion                   // print Version
)

// Command is a command line that was understood.
type Command struct {
	Action Action
	// Change is what to change, if Action is Change.
	Change lvs.Change
	// List is how to print, if Action is one of the listings or Save.
	List List
	// DryRun tells that a change or a restore shall only say what it would do, and
	// Atomic that a restore shall make all rules or none. Both are lvx's own.
	DryRun, Atomic bool
}

// Exit codes of ipvsadm. RunTime is -1 as a process's exit status.
const (
	ExitNotFound = 1   // a service to be listed does not exist
	ExitUsage    = 2   // the command line is wrong
	ExitRunTime  = 255 // the change was refused, or an option is not known
)

// Error is a command line that ipvsadm, or lvx, refuses.
type Error struct {
	Message string // as ipvsadm words it
	Exit    int    // one of the exit codes
	// EndsRestore tells that such a line ends a restore, where others are
	// reported and passed over.
	EndsRestore bool
	// Unbuilt tells that ipvsadm has it and this version of lvx has not.
	Unbuilt bool
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Parse reads a command line without the program's name. Every error is an
// *Error. Without arguments it is a listing with names.
func Parse(args []string, names Names) (*Command, error) {
	if len(args) == 0 {
		return &Command{Action: ListServices}, nil
	}
	return parse(args, names, false)
}

func parse(args []string, names Names, inRestore bool) (*Command, error) {
	l := newLine(names)
	if err := l.read(args); err != nil {
		return nil, err
	}
	switch l.command {
	case help:
		return &Command{Action: Help}, nil
	case version:
		return &Command{Action: ShowVersion}, nil
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if inRestore && l.command == restore {
		return nil, tryHelp()
	}
	if inRestore && l.set[dryRun] {
		return nil, wrong("'dry-run' is an option of the whole restore: ipvsadm -R --dry-run")
	}
	if err := l.unsupported(); err != nil {
		return nil, err
	}
	return l.build(), nil
}
