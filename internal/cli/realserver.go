// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
	"lvx/internal/realserver"
)

const realserverLong = `Makes this host a correct real server, and undoes exactly that. It needs no
daemon; run it on each real server, as root.

With method dr every real server holds the VIP itself and answers the client
directly. So the VIP has to be on lo as /32 (IPv6: /128), and this host must be
silent about it: if it answered ARP for the VIP, or asked with it, clients
would learn its MAC address and bypass the director, while everything seems
to work. For IPv4 join therefore sets

  net.ipv4.conf.all.arp_ignore   = 1   answer only for the interface's own
  net.ipv4.conf.all.arp_announce = 2   ask only with the interface's own

and reads back what each interface makes of it: the larger of conf/all and
conf/INTERFACE counts, so conf/lo has no effect. IPv6 needs no sysctl.`

const realserverExample = `  lvx realserver join --vip 192.0.2.100
  lvx realserver join --vip 192.0.2.100,2001:db8::100 --persist
  lvx realserver status
  lvx realserver leave`

// realserverFlags are the flags of join, leave and status.
type realserverFlags struct {
	vips, directors []string
	method, state   string
	persist, json   bool
}

func (e *Env) realserverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "realserver",
		Short:   "Make this host a correct real server: the VIP on lo, and silent about it",
		Long:    realserverLong,
		Example: realserverExample,
	}
	c.AddCommand(e.realserverJoinCommand(), e.realserverLeaveCommand(), e.realserverStatusCommand())
	return c
}

func (e *Env) realserverJoinCommand() *cobra.Command {
	f := &realserverFlags{}
	c := &cobra.Command{
		Use:   "join --vip A[,A...]",
		Short: "Put the VIPs on lo and keep this host from answering ARP for them",
		Long: `Puts the VIPs on lo and keeps this host from answering ARP for them. What is so
already stays as it is. If anything fails, what had been done is taken back.
What there was before is remembered in a state file, for leave.

With --persist it also writes /etc/sysctl.d/60-lvx-realserver.conf, and for the
VIPs a file of what configures this host's network (systemd-networkd or
ifupdown). What it cannot write for you it says, with the line to add.`,
		Example: `  lvx realserver join --vip 192.0.2.100
  lvx realserver join --vip 192.0.2.100 --vip 192.0.2.101 --persist`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return e.changeRealserver("join", f, realserver.Join) },
	}
	f.common(c)
	c.Flags().StringVar(&f.method, "method", string(lvs.DR), "forwarding method: dr (tun, nat and fullnat are not in this version)")
	c.Flags().StringSliceVar(&f.directors, "director", nil, "the directors' addresses; dr does not need them, they are only checked")
	c.Flags().BoolVar(&f.persist, "persist", false, "also after a reboot")
	_ = c.MarkFlagRequired("vip") // fails only for a flag that does not exist
	return c
}

func (e *Env) realserverLeaveCommand() *cobra.Command {
	f := &realserverFlags{}
	c := &cobra.Command{
		Use:   "leave [--vip A[,A...]]",
		Short: "Undo what join did, and only that",
		Long: `Undoes what join did for the VIPs, by default all that have joined, and only
that: a VIP that was on lo before stays; a sysctl gets back the value it had,
unless somebody has changed it since. The sysctls stay while another IPv4 VIP
is joined. The files of --persist go, or are written anew for the VIPs left.

Without the state file it takes the VIPs named from lo and says what it could
not know.`,
		Example: `  lvx realserver leave
  lvx realserver leave --vip 192.0.2.101`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return e.changeRealserver("leave", f, realserver.Leave) },
	}
	f.common(c)
	return c
}

func (e *Env) realserverStatusCommand() *cobra.Command {
	f := &realserverFlags{}
	c := &cobra.Command{
		Use:   "status [--vip A[,A...]]",
		Short: "What is wanted and what is effective, per VIP and interface; exit 1 if anything is wrong",
		Long: `Tells for each VIP and each interface what is wanted and what is effective, and
the command that mends what is wrong. Exit 1 if anything is. Without --vip it
looks at the VIPs that have joined, else at those that somebody else put on lo.`,
		Example: `  lvx realserver status
  lvx realserver status --vip 192.0.2.100 --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return e.realserverStatus(f) },
	}
	f.common(c)
	return c
}

// common adds the flags that all three have.
func (f *realserverFlags) common(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.vips, "vip", nil, "the VIPs, each as A or A/32 (IPv6: A/128)")
	c.Flags().StringVar(&f.state, "state", "", "the file that remembers what there was before (default /run/lvx/realserver.json, in other network namespaces realserver-COOKIE.json)")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON: an array of objects")
}

// options turns the flags into what package realserver takes.
func (f *realserverFlags) options() (realserver.Options, error) {
	o := realserver.Options{Method: lvs.Method(f.method), Persist: f.persist, StatePath: f.state}
	for _, text := range f.vips {
		vip, err := realserver.ParseVIP(text)
		if err != nil {
			return o, err
		}
		o.VIPs = append(o.VIPs, vip)
	}
	for _, text := range f.directors {
		director, err := netip.ParseAddr(text)
		if err != nil {
			return o, fmt.Errorf("director %q is not an IP address", text)
		}
		o.Directors = append(o.Directors, director)
	}
	return o, nil
}

// changeRealserver runs join or leave, and tells each step.
func (e *Env) changeRealserver(name string, f *realserverFlags, change func(realserver.Options) ([]realserver.Step, error)) error {
	o, err := f.options()
	if err != nil {
		return usageError("realserver %s: %s", name, err)
	}
	steps, err := change(o)
	if err != nil {
		return realserverError(name, err)
	}
	if f.json {
		return printJSON(e.Out, steps)
	}
	for _, step := range steps {
		out := e.Out
		if step.Warning {
			fmt.Fprint(e.Err, "lvx: warning: ")
			out = e.Err
		}
		if _, err := fmt.Fprintln(out, step.Text); err != nil {
			return err
		}
	}
	return nil
}

// realserverError words an error in one line, with the exit code it deserves.
func realserverError(name string, err error) error {
	code := ExitFailed
	if errors.Is(err, lvs.ErrInvalid) || errors.Is(err, lvs.ErrUnsupported) {
		code = ExitUsage
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if errors.Is(err, realserver.ErrNoPrivilege) {
		text += fmt.Sprintf(": sudo lvx realserver %s …", name)
	}
	return &ExitError{Code: code, Message: "realserver " + name + ": " + text}
}

func (e *Env) realserverStatus(f *realserverFlags) error {
	o, err := f.options()
	if err != nil {
		return usageError("realserver status: %s", err)
	}
	facts, err := realserver.Status(o)
	if err != nil {
		return realserverError("status", err)
	}
	if f.json {
		err = printJSON(e.Out, facts)
	} else {
		err = e.factTable(facts)
	}
	if err != nil {
		return err
	}
	for _, fact := range facts {
		if !fact.OK {
			return &ExitError{Code: ExitFailed} // the table says it all
		}
	}
	return nil
}

func (e *Env) factTable(facts []realserver.Fact) error {
	t := e.newTable("STATE", "OBJECT", "WANTED", "EFFECTIVE", "FIX")
	for _, fact := range facts {
		state := coloured(green, "ok")
		if !fact.OK {
			state = coloured(red, "wrong")
		}
		fix := fact.Fix
		if fact.Note != "" {
			fix = strings.TrimSpace(fix + "  # " + fact.Note) // a comment, so that the line can be pasted
		}
		if err := t.add(state, word(fact.Object), word(fact.Wanted), word(fact.Effective), word(fix)); err != nil {
			return err
		}
	}
	return t.flush()
}
