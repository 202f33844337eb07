// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"lvx/api"
	"lvx/internal/ipvsadm"
	"lvx/internal/lvs"
)

// resolveWait is how long -a and the end of -R wait for the next hops of real
// servers: a neighbour on the same link answers within milliseconds, and the
// first connection shall not fail because ipvsadm was quicker.
const resolveWait = 300 * time.Millisecond

// noWarnings, as a wait, is for the lines of a restore: whether their real servers
// can be reached is told at its end, once all had time to answer.
const noWarnings = -1

// RunIPVSAdm is the program ipvsadm: it does what args ask for and returns
// ipvsadm's exit code.
func RunIPVSAdm(env *Env, args []string) int {
	a := newIPVSAdm(env)
	defer a.client.Close()
	command, err := ipvsadm.Parse(args, a.names)
	if err != nil {
		return a.fail("", err)
	}
	if command.Action == ipvsadm.Restore {
		return a.restore(env.In)
	}
	return a.do(command, resolveWait)
}

// RunIPVSAdmSave is the program ipvsadm-save: ipvsadm -S. Of its arguments it
// knows -n.
func RunIPVSAdmSave(env *Env, args []string) int {
	save := []string{"-S"}
	for _, arg := range args {
		if arg == "-n" {
			save = []string{"-S", "-n"}
		} else if strings.HasPrefix(arg, "-") {
			fmt.Fprint(env.Err, "ipvsadm-save: Script to save the IPVS table to stdout.\n"+
				"   With the -n option, prints out the table in numeric format.\n")
			return ExitFailed
		}
	}
	return RunIPVSAdm(env, save)
}

// RunIPVSAdmRestore is the program ipvsadm-restore: it clears the table and
// makes the rules of stdin, but for lines that begin with #. Like the original
// it has read all of them before it clears.
func RunIPVSAdmRestore(env *Env, _ []string) int {
	text, err := io.ReadAll(env.In)
	if err != nil {
		fmt.Fprintf(env.Err, "lvx: read rules: %s\n", err)
		return ipvsadm.ExitRunTime
	}
	var rules bytes.Buffer
	for rule := range bytes.Lines(text) {
		if !bytes.HasPrefix(rule, []byte("#")) {
			rules.Write(rule)
		}
	}
	a := newIPVSAdm(env)
	defer a.client.Close()
	if a.unbuilt(rules.Bytes()) {
		fmt.Fprintln(env.Err, "lvx: nothing was changed")
		return ipvsadm.ExitRunTime
	}
	clearAll := &ipvsadm.Command{Action: ipvsadm.Change, Change: lvs.Change{Operation: lvs.Clear}}
	if code := a.do(clearAll, 0); code != ExitDone {
		return code
	}
	return a.restore(&rules)
}

// ipvsAdm is one run of ipvsadm.
type ipvsAdm struct {
	env    *Env
	client *api.Client
	names  ipvsadm.Names
}

func newIPVSAdm(env *Env) *ipvsAdm {
	return &ipvsAdm{env: env, client: env.client(), names: newNames().functions()}
}

// unbuilt tells of every rule that this version has not, and whether there is one:
// who restores a table has to know before the old one is gone.
func (a *ipvsAdm) unbuilt(rules []byte) (found bool) {
	for script := ipvsadm.NewScript(bytes.NewReader(rules), a.names); ; {
		_, err := script.Next()
		line := (*ipvsadm.Error)(nil)
		if err != nil && !errors.As(err, &line) {
			return found // the end, or what cannot be read: the restore will tell
		}
		if line != nil && line.Unbuilt {
			a.failLine(script.Line(), line)
			found = true
		}
	}
}

// failLine tells of a rule that this version has not, with its place.
func (a *ipvsAdm) failLine(number int, e *ipvsadm.Error) int {
	fmt.Fprintf(a.env.Err, "lvx: line %d: %s\n", number, strings.TrimPrefix(e.Message, "lvx: "))
	return e.Exit
}

// restore makes the rules that it reads, each by itself as ipvsadm does: what
// the daemon refuses is told and passed over. It returns the last one's code, or
// that of a rule which this version has not: that is never passed over in silence.
func (a *ipvsAdm) restore(rules io.Reader) int {
	if _, err := a.client.Services(context.Background()); err != nil {
		return a.fail("", err) // there is no daemon, as the real one has no kernel
	}
	added, code, unbuilt := false, ExitDone, ExitDone
	for script := ipvsadm.NewScript(rules, a.names); ; {
		command, err := script.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if line := (*ipvsadm.Error)(nil); errors.As(err, &line) && line.Unbuilt {
			unbuilt = a.failLine(script.Line(), line)
			continue
		}
		operation := lvs.Operation("")
		if err == nil {
			operation = command.Change.Operation
			err = a.run(command, noWarnings)
			added = added || operation == lvs.AddServer
		}
		code = a.fail(operation, err)
		if err == nil && (command.Action == ipvsadm.Help || command.Action == ipvsadm.ShowVersion) || ends(err) {
			return code
		}
	}
	if added {
		if err := a.apply(nil, resolveWait); err != nil {
			return a.fail("", err)
		}
	}
	return max(code, unbuilt)
}

// ends tells whether a restore cannot go on after err.
func ends(err error) bool {
	if line := (*ipvsadm.Error)(nil); errors.As(err, &line) {
		return line.EndsRestore
	}
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) {
		return false
	}
	return err != nil // the daemon or the input is gone
}

func (a *ipvsAdm) do(c *ipvsadm.Command, wait time.Duration) int {
	return a.fail(c.Change.Operation, a.run(c, wait))
}

func (a *ipvsAdm) run(c *ipvsadm.Command, wait time.Duration) error {
	ctx := context.Background()
	switch c.Action {
	case ipvsadm.ListConnections:
		return a.connections(ctx, c.List)
	case ipvsadm.ListDaemons: // none runs, and then ipvsadm prints nothing
		return nil
	case ipvsadm.ListTimeouts:
		status, err := a.client.Status(ctx)
		if err != nil {
			return err
		}
		return a.print(ipvsadm.TimeoutLine(status.Timeouts))
	case ipvsadm.Help:
		return a.print(ipvsadm.Usage)
	case ipvsadm.ShowVersion:
		return a.print(ipvsadm.Version + "\n")
	case ipvsadm.Change:
		if c.Change.Operation != lvs.AddServer {
			wait = min(wait, 0)
		}
		return a.apply([]lvs.Change{c.Change}, wait)
	}
	services, err := a.client.Services(ctx)
	if err != nil {
		return err
	}
	if c.Action == ipvsadm.Save {
		return c.List.PrintRules(a.env.Out, services, a.names)
	}
	return c.List.PrintServices(a.env.Out, services, a.names)
}

func (a *ipvsAdm) print(text string) error {
	_, err := io.WriteString(a.env.Out, text)
	return err
}

// connections prints the connections as they come: there can be millions.
func (a *ipvsAdm) connections(ctx context.Context, list ipvsadm.List) error {
	out := bufio.NewWriter(a.env.Out)
	fmt.Fprint(out, list.ConnectionHeader())
	err := a.client.Connections(ctx, func(c lvs.Connection) error {
		return list.PrintConnection(out, c, a.names)
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

func (a *ipvsAdm) apply(changes []lvs.Change, wait time.Duration) error {
	applied, err := a.client.Apply(context.Background(), api.Changes{Changes: changes, Wait: lvs.Duration(max(wait, 0))})
	if err != nil || wait == noWarnings {
		return err
	}
	for _, w := range applied.Warnings {
		fmt.Fprintf(a.env.Err, "lvx: warning: %s: %s; %s\n", w.Object, w.Text, w.Fix)
	}
	return nil
}

// fail prints what is to be said of err, which may be nil, and returns the exit
// code. operation is what was tried.
func (a *ipvsAdm) fail(operation lvs.Operation, err error) int {
	if err == nil {
		return ExitDone
	}
	message, code := explain(operation, err)
	fmt.Fprintln(a.env.Err, message)
	return code
}

// explain words an error as ipvsadm does. Without a daemon it is what ipvsadm
// says without the kernel module.
func explain(operation lvs.Operation, err error) (message string, code int) {
	const unreachable = "Can't initialize ipvs: "
	line, refusal := (*ipvsadm.Error)(nil), (*api.Error)(nil)
	switch {
	case errors.As(err, &line):
		return line.Message, line.Exit
	case errors.Is(err, api.ErrDenied):
		return unreachable + ipvsadm.PermissionDenied, ipvsadm.ExitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return unreachable + api.ErrNoDaemon.Error() + "\nStart one with: lvx director", ipvsadm.ExitUsage
	case errors.As(err, &refusal) && refusal.Code == "forbidden":
		return ipvsadm.PermissionDenied, ipvsadm.ExitRunTime
	}
	return ipvsadm.RuntimeText(operation, err), ipvsadm.ExitRunTime
}
