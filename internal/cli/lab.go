// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// labCommand is `lvx lab`: a virtual server to play with, on this machine.
func (e *Env) labCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Build a client, a router, a director and real servers on this machine",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(e.labDemoCommand(), e.labListCommand(), e.labUpCommand(),
		e.labExecCommand(), e.labStatusCommand(), e.labDownCommand())
	return c
}

// labHiddenCommands are what lab starts lvx as; people do not type them.
func (e *Env) labHiddenCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: lab.HolderCommand, Hidden: true, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return lab.RunHolder(args, os.Stdin, os.Stdout) },
		},
		{
			Use: lab.ServerCommand, Hidden: true, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return lab.RunServer(args) },
		},
	}
}

// labContext ends with Ctrl-C and the like, so that the lab is taken down.
func labContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// labInterrupted says what happened, instead of what broke by it.
func labInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted; the lab is gone")
	}
	return err
}

// labProgress tells the steps on standard error, to people only.
func (e *Env) labProgress(step string) {
	if e.Terminal {
		fmt.Fprintf(e.Err, "… %s\n", step)
	}
}

func (e *Env) labDemoCommand() *cobra.Command {
	var o lab.DemoOptions
	var method string
	var keep, asJSON bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Build a virtual server, ask it, show each frame's way, take it down",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Method, o.Progress = lvs.Method(method), e.labProgress
			if o.Topology != "" && !c.Flags().Changed("method") {
				o.Method = "" // the topology says it
			}
			if c.Flags().Changed("requests") && o.Requests == 0 {
				return usageError("0 requests are not between 1 and 20000")
			}
			if err := o.Validate(); err != nil {
				return usageError("%s", err)
			}
			return e.labDemo(o, keep, asJSON)
		},
	}
	c.Flags().StringVar(&method, "method", string(lvs.DR), "forwarding method: dr, nat or tun (fullnat: not in this version)")
	c.Flags().StringVar(&o.Topology, "topology", "", "the network: one that lvx lab list names (default the first there for the method)")
	c.Flags().IntVar(&o.Family, "family", 4, "IP version, 4 or 6")
	c.Flags().IntVar(&o.Requests, "requests", 100, "how often to ask, each time over a new connection")
	c.Flags().BoolVar(&keep, "keep", false, "leave it up to play with, as lvx lab up does")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func (e *Env) labDemo(o lab.DemoOptions, keep, asJSON bool) error {
	ctx, stop := labContext()
	defer stop()
	if keep {
		release, err := reserveLab()
		if err != nil {
			return err
		}
		defer release()
	}
	l, result, err := lab.Demo(ctx, o)
	if err != nil {
		return labInterrupted(ctx, err)
	}
	defer l.Close()
	if err := e.printDemo(result, asJSON); err != nil {
		return err
	}
	if keep {
		if err := lab.DefaultStore.Keep(l); err != nil {
			return err
		}
		e.labHint(asJSON)
	}
	if result.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed", result.Failed, result.Requests)
	}
	return nil
}

func (e *Env) printDemo(result *lab.DemoResult, asJSON bool) error {
	if !asJSON {
		return result.Tell(e.Out)
	}
	encoder := json.NewEncoder(e.Out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(result)
}

// labHint tells what to do with a lab that stays up.
func (e *Env) labHint(quiet bool) {
	if quiet {
		return
	}
	fmt.Fprint(e.Out, `
The lab is up. Try:
   lvx lab exec director -- ipvsadm -Ln
   lvx lab exec director -- lvx reasons
   lvx lab exec director -- cat /run/lvx-log/lvx-director.log
   lvx lab exec rs1 -- lvx realserver status
   lvx lab status
and end it with:
   lvx lab down
`)
}

// reserveLab makes sure that this process may bring a lab up.
func reserveLab() (release func(), err error) {
	if os.Geteuid() != 0 {
		return nil, lab.ErrNotRoot
	}
	return lab.DefaultStore.Reserve()
}

func (e *Env) labListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the topologies that can be built",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(e.Out, lab.Topologies())
			}
			for _, t := range lab.Topologies() {
				fmt.Fprintf(e.Out, "%-12s %s\n", t.Name, t.Text)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (e *Env) labUpCommand() *cobra.Command {
	var family int
	c := &cobra.Command{
		Use:   "up NAME",
		Short: "Build a topology with a running director and service, and leave it up",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("name a topology; lvx lab list lists them")
			}
			if _, ok := lab.FindTopology(args[0]); !ok {
				return usageError("there is no topology %q; lvx lab list lists them", args[0])
			}
			if family != 4 && family != 6 {
				return usageError("family %d is not 4 or 6", family)
			}
			return e.labUp(args[0], family)
		},
	}
	c.Flags().IntVar(&family, "family", 4, "IP version of the service, 4 or 6")
	return c
}

func (e *Env) labUp(name string, family int) error {
	release, err := reserveLab()
	if err != nil {
		return err
	}
	defer release()
	ctx, stop := labContext()
	defer stop()
	e.labProgress("building client, router, switch, director and real servers")
	l, err := lab.Build(ctx, name, lab.Options{})
	if err != nil {
		return labInterrupted(ctx, err)
	}
	defer l.Close()
	e.labProgress("starting lvx director, joining the real servers, adding the service")
	if _, err := l.Deploy(ctx, family); err != nil {
		return labInterrupted(ctx, err)
	}
	if err := lab.DefaultStore.Keep(l); err != nil {
		return err
	}
	fmt.Fprint(e.Out, l.Drawing(family))
	e.labHint(false)
	return nil
}

func (e *Env) labExecCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exec HOST -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a host of the lab that is up",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 && args[1] == "--" {
				args = slices.Delete(args, 1, 2)
			}
			if len(args) < 2 {
				return usageError("usage: lvx lab exec HOST -- COMMAND; lvx lab status lists the hosts")
			}
			return e.labExec(args[0], args[1], args[2:])
		},
	}
	c.Flags().SetInterspersed(false) // what follows the host is not for us
	return c
}

func (e *Env) labExec(host, name string, args []string) error {
	if os.Geteuid() != 0 {
		return lab.ErrNotRoot
	}
	l, err := lab.DefaultStore.Open()
	if err != nil {
		return err
	}
	defer l.Close()
	h := l.Host(host)
	if h == nil {
		return fmt.Errorf("the lab has no host %q; lvx lab status lists them", host)
	}
	// Ctrl-C is for the command, which the terminal sends it to as well.
	// Not signal.Ignore, which the command would inherit.
	unheeded := make(chan os.Signal, 1)
	signal.Notify(unheeded, unix.SIGINT, unix.SIGQUIT)
	defer signal.Stop(unheeded)
	c := h.Command(context.Background(), name, args...)
	c.Stdin, c.Stdout, c.Stderr = e.In, e.Out, e.Err
	return exitOf(c.Run())
}

// exitOf gives this process the exit code of the command, as a shell does.
func exitOf(err error) error {
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) {
		return err
	}
	if code := exit.ExitCode(); code >= 0 {
		return &ExitError{Code: code}
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok {
		return &ExitError{Code: 128 + int(status.Signal())}
	}
	return err
}

// labHost is a host as `lvx lab status` shows it.
type labHost struct {
	Lab       string       `json:"lab"`
	Host      string       `json:"host"`
	PID       int          `json:"pid"`
	Running   bool         `json:"running"`
	Addresses []netip.Addr `json:"addresses"`
	Processes []string     `json:"processes"`
	UpSeconds int          `json:"up_seconds"`
}

func (e *Env) labStatusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the hosts of the lab that is up",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return e.labStatus(asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (e *Env) labStatus(asJSON bool) error {
	if os.Geteuid() != 0 {
		return lab.ErrNotRoot
	}
	hosts := []labHost{}
	l, err := lab.DefaultStore.Open()
	if err != nil && !errors.Is(err, lab.ErrNoLab) {
		return err
	}
	if err == nil {
		defer l.Close()
		for _, h := range l.Hosts() {
			hosts = append(hosts, newLabHost(l, h))
		}
	}
	if asJSON {
		return printJSON(e.Out, hosts)
	}
	if len(hosts) == 0 {
		fmt.Fprintln(e.Out, lab.ErrNoLab)
		return nil
	}
	return e.printLabHosts(hosts)
}

func newLabHost(l *lab.Lab, h *lab.Host) labHost {
	s := labHost{
		Lab: l.Name, Host: h.Name, PID: h.PID(), Running: h.Running(),
		Addresses: []netip.Addr{}, Processes: []string{},
		UpSeconds: int(time.Since(l.Created).Seconds()),
	}
	for _, i := range h.Interfaces {
		for _, p := range i.Addresses {
			s.Addresses = append(s.Addresses, p.Addr())
		}
	}
	if s.Running {
		s.Processes = append(s.Processes, h.Processes()...)
	}
	return s
}

func (e *Env) printLabHosts(hosts []labHost) error {
	w := tabwriter.NewWriter(e.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tPID\tSTATE\tADDRESSES\tRUNS")
	for _, h := range hosts {
		state := "up"
		if !h.Running {
			state = "dead"
		}
		var addresses []string
		for _, a := range h.Addresses {
			addresses = append(addresses, a.String())
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", h.Host, h.PID, state, strings.Join(addresses, " "), strings.Join(h.Processes, "; "))
	}
	return w.Flush()
}

func (e *Env) labDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the lab that is up, with all that runs in it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if os.Geteuid() != 0 {
				return lab.ErrNotRoot
			}
			return lab.DefaultStore.Down()
		},
	}
}
