// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"lvx/internal/cli"
	"lvx/internal/config"
	"lvx/internal/director"
	"lvx/internal/server"
	"lvx/internal/store"
)

func TestMain(m *testing.M) {
	run := func(main func(*cli.Env, []string) int) func() {
		return func() {
			env := &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
			os.Exit(main(env, os.Args[1:]))
		}
	}
	testscript.Main(m, map[string]func(){
		"ipvsadm":         run(cli.RunIPVSAdm),
		"ipvsadm-save":    run(cli.RunIPVSAdmSave),
		"ipvsadm-restore": run(cli.RunIPVSAdmRestore),
		"lvx":             run(func(e *cli.Env, args []string) int { return cli.Run(e, args) }),
	})
}

// Each script has a director of its own, on a data plane in memory. Besides the
// programs it knows:
//
//	faults N    from now on every N-th write fails (0: none)
//	table FILE  the plane's table has to equal the file
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("LVX_UPDATE") != "",
		Setup:         setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"faults": faults,
			"table":  table,
		},
	})
}

func setup(env *testscript.Env) error {
	memory := NewMemory()
	log := slog.New(slog.DiscardHandler)
	state, err := store.Open(store.Options{Dir: filepath.Join(env.WorkDir, ".state"), Encode: config.Marshal})
	if err != nil {
		return err
	}
	brain, err := director.New(director.Options{Plane: memory, Facts: memory, Store: state, Log: log})
	if err != nil {
		return err
	}
	if err := brain.Start(context.Background(), director.File{}, true); err != nil {
		return err
	}
	listener, err := server.Listen(filepath.Join(env.WorkDir, "lvx.sock"))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go brain.Run(ctx)
	go func() {
		served <- server.New(server.Options{Director: brain, Log: log, Version: "test", Instance: "script"}).Serve(ctx, listener)
	}()
	env.Defer(func() {
		stop()
		if err := <-served; err != nil {
			env.T().Fatal(err)
		}
	})
	env.Setenv("LVX_SOCKET", filepath.Join(env.WorkDir, "lvx.sock"))
	env.Values["memory"] = memory
	return nil
}

func faults(ts *testscript.TestScript, _ bool, args []string) {
	every, err := strconv.Atoi(args[0])
	ts.Check(err)
	memory := ts.Value("memory").(*Memory)
	memory.mu.Lock()
	defer memory.mu.Unlock()
	memory.writes = 0
	memory.Fail = func(n int) bool { return every > 0 && n%every == 0 }
}

func table(ts *testscript.TestScript, neg bool, args []string) {
	memory := ts.Value("memory").(*Memory)
	diff := cmp.Diff(ts.ReadFile(args[0]), text(scriptFailer{ts}, memory))
	if (diff == "") == neg {
		ts.Fatalf("the table (-want +got):\n%s", diff)
	}
}

type scriptFailer struct{ *testscript.TestScript }

func (scriptFailer) Helper() {}

func (s scriptFailer) Fatal(a ...any) { s.Fatalf("%v", a) }
