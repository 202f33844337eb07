// SPDX-License-Identifier: Apache-2.0

// Command lvx is a Linux Virtual Server. Called as ipvsadm, ipvsadm-save or
// ipvsadm-restore it is that program.
//
// It is for wiring alone: which command was meant, and what the daemon is made of.
package main

import (
	"os"
	"path/filepath"

	"golang.org/x/term"

	"lvx/internal/cli"
)

func main() {
	env := &cli.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv:      os.Getenv,
		Terminal:    term.IsTerminal(int(os.Stdout.Fd())),
		ErrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	os.Exit(run(env, filepath.Base(os.Args[0]), os.Args[1:]))
}

func run(env *cli.Env, name string, args []string) int {
	switch name {
	case "ipvsadm":
		return cli.RunIPVSAdm(env, args)
	case "ipvsadm-save":
		return cli.RunIPVSAdmSave(env, args)
	case "ipvsadm-restore":
		return cli.RunIPVSAdmRestore(env, args)
	}
	return cli.Run(env, args, directorCommand(env))
}
