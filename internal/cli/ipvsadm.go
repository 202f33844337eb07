// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
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

// ipvsadmHelp says what lvx adds; the rest is in ipvsadm's own help, which is
// printed as it was recorded.
const ipvsadmHelp = `Takes ipvsadm's options and prints what ipvsadm 1.31 prints, with its exit codes;
ipvsadm -h lists them. What this version does not have is refused.

lvx has more of its own, long ones:
  --json      with -L: an array of services with their real servers, as lvx services
              prints it; with -Lc an array of connections
  --dry-run   with a command that changes something, or with -R: shows what would
              change, as lvx plan does, and changes nothing
  --atomic    with -R: makes all rules or none. Every line that is in the way is
              told with its number; exit 2 if a line is wrong, 255 if it is refused

-R makes what can be made and tells what cannot, as ipvsadm does. ipvsadm-restore
takes --dry-run and --atomic too; it clears the table in the same change that fills
it, so that a service which stays as it is loses no packet.`

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
		return a.newRestore(env.In).run(command.Atomic, command.DryRun)
	}
	return a.fail(command.Change.Operation, a.run(command))
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

// ipvsAdm is one run of ipvsadm.
type ipvsAdm struct {
	env    *Env
	client *api.Client
	names  ipvsadm.Names
}

func newIPVSAdm(env *Env) *ipvsAdm {
	return &ipvsAdm{env: env, client: env.client(), names: newNames().functions()}
}

// run does what a command asks for, but for a restore.
func (a *ipvsAdm) run(c *ipvsadm.Command) error {
	ctx := context.Background()
	switch c.Action {
	case ipvsadm.Change:
		return a.change(ctx, c)
	case ipvsadm.Save:
		return a.save(ctx, c.List)
	case ipvsadm.ListConnections:
		return a.listConnections(ctx, c.List)
	case ipvsadm.ListDaemons:
		return a.listDaemons(ctx, c.List)
	case ipvsadm.ListTimeouts:
		return a.listTimeouts(ctx, c.List)
	case ipvsadm.Help:
		return a.print(ipvsadm.Usage)
	case ipvsadm.ShowVersion:
		return a.print(ipvsadm.Version + "\n")
	}
	return a.listServices(ctx, c.List)
}

func (a *ipvsAdm) print(text string) error {
	_, err := io.WriteString(a.env.Out, text)
	return err
}

func (a *ipvsAdm) listServices(ctx context.Context, list ipvsadm.List) error {
	services, err := a.client.Services(ctx)
	if err != nil {
		return err
	}
	if !list.JSON {
		return list.PrintServices(a.env.Out, services, a.names)
	}
	if services, err = list.Pick(services); err != nil {
		return err
	}
	return printJSON(a.env.Out, services)
}

func (a *ipvsAdm) save(ctx context.Context, list ipvsadm.List) error {
	services, err := a.client.Services(ctx)
	if err != nil {
		return err
	}
	return list.PrintRules(a.env.Out, services, a.names)
}

func (a *ipvsAdm) listTimeouts(ctx context.Context, list ipvsadm.List) error {
	status, err := a.client.Status(ctx)
	if err != nil {
		return err
	}
	if list.JSON {
		return printJSON(a.env.Out, []lvs.Timeouts{status.Timeouts})
	}
	return a.print(ipvsadm.TimeoutLine(status.Timeouts))
}

// listDaemons lists the daemons of connection synchronisation: none runs, and then
// ipvsadm prints nothing.
func (a *ipvsAdm) listDaemons(ctx context.Context, list ipvsadm.List) error {
	if err := a.reach(ctx); err != nil {
		return err
	}
	if list.JSON {
		return printJSON(a.env.Out, []struct{}{})
	}
	return nil
}

// reach tells whether there is a daemon, where nothing else of it is asked: the
// real ipvsadm needs the kernel for whatever it does.
func (a *ipvsAdm) reach(ctx context.Context) error {
	_, err := a.client.Reasons(ctx) // the shortest of the answers
	return err
}

// listConnections prints the connections as they come: there can be millions.
func (a *ipvsAdm) listConnections(ctx context.Context, list ipvsadm.List) error {
	out := bufio.NewWriter(a.env.Out)
	array := &jsonArray{w: out}
	add, end := func(c lvs.Connection) error { return array.Add(c) }, array.Close
	if !list.JSON {
		fmt.Fprint(out, list.ConnectionHeader())
		add = func(c lvs.Connection) error { return list.PrintConnection(out, c, a.names) }
		end = func() error { return nil }
	}
	if err := a.client.Connections(ctx, api.ConnectionQuery{}, add); err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	return out.Flush()
}

// change makes one change, or says what it would do.
func (a *ipvsAdm) change(ctx context.Context, c *ipvsadm.Command) error {
	wanted := api.Changes{Changes: []lvs.Change{c.Change}, DryRun: c.DryRun}
	if c.Change.Operation == lvs.AddServer && !c.DryRun {
		wanted.Wait = lvs.Duration(resolveWait)
	}
	applied, err := a.client.Apply(ctx, wanted)
	if err != nil {
		return err
	}
	if c.DryRun {
		return a.printPlan(applied)
	}
	a.warn(applied.Warnings)
	return nil
}

// printPlan prints what a dry run would have done.
func (a *ipvsAdm) printPlan(applied api.Applied) error {
	if applied.Plan == nil {
		return errors.New("the daemon made no plan: perhaps it made the changes; look with: ipvsadm -Ln")
	}
	return a.env.printPlan(*applied.Plan)
}

func (a *ipvsAdm) warn(warnings []lvs.Warning) {
	for _, w := range warnings {
		fmt.Fprintf(a.env.Err, "lvx: warning: %s: %s; %s\n", w.Object, w.Text, w.Fix)
	}
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
	case errors.Is(err, api.ErrDenied) && errors.As(err, &refusal): // he may read
		return ipvsadm.PermissionDenied, ipvsadm.ExitRunTime
	case errors.Is(err, api.ErrDenied):
		return unreachable + ipvsadm.PermissionDenied, ipvsadm.ExitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return unreachable + api.ErrNoDaemon.Error() + "\nStart one with: lvx director", ipvsadm.ExitUsage
	}
	text := ipvsadm.RuntimeText(operation, err)
	if errors.Is(err, lvs.ErrUnconfirmed) {
		text += "; keep it with: lvx confirm, or take it back with: lvx rollback"
	}
	return text, ipvsadm.ExitRunTime
}
