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
conf/INTERFACE counts, so conf/lo has no effect. IPv6 needs no sysctl.

With method tun the director puts each packet into another one, for this host's
own address: ipip, gre or gue, of either family. Join does all that it does for dr,
and besides

  attaches a program (XDP) to the Ethernet interfaces, which takes that header off
  again, but only of packets that come from --director for one of the VIPs; all
  other packets pass it as they are. It is pinned in /sys/fs/bpf/lvx/realserver
  and outlives the command, not a reboot;
  gives connections of the VIPs a routing table of their own (ip rule from VIP),
  with the routes of table main and an MSS that leaves room for the tunnel;
  sets rp_filter = 2 on an interface where a strict filter would drop packets that
  come out of a tunnel, since their source is the client.

Status shows what became of the packets. If this host's routes or a MAC address
change, it says so: join again.

With method nat the director rewrites the packets of both directions, so that
replies have to pass it. No VIP is put on lo: join makes the director the default
gateway, at most one of each family, in the place of the default routes there are,
and sets accept_redirects = 0, so that no ICMP redirect teaches this host another way.
Leave brings the old default routes back as they were.`

const realserverExample = `  lvx realserver join --vip 192.0.2.100
  lvx realserver join --vip 192.0.2.100,2001:db8::100 --persist
  lvx realserver join --vip 192.0.2.100 --method tun --director 10.0.0.1,10.0.0.2
  lvx realserver join --method nat --director 10.0.0.1
  lvx realserver status
  lvx realserver leave`

// realserverFlags are the flags of join, leave and status.
type realserverFlags struct {
	vips, directors []string
	interfaces      []string
	ports           []uint
	method, state   string
	persist, json   bool
}

func (e *Env) realserverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "realserver",
		Short:   "Make this host a correct real server, and undo exactly that",
		Long:    realserverLong,
		Example: realserverExample,
	}
	c.AddCommand(e.realserverJoinCommand(), e.realserverLeaveCommand(), e.realserverStatusCommand())
	return c
}

func (e *Env) realserverJoinCommand() *cobra.Command {
	f := &realserverFlags{}
	c := &cobra.Command{
		Use:   "join --vip A[,A...] [--method M] [--director A[,A...]]",
		Short: "Do what the forwarding method needs of this host",
		Long: `Puts the VIPs on lo and keeps this host from answering ARP for them; with method
tun it also takes off the header of tunnels; with method nat it does nothing of
that and makes the director the default gateway. What is so already stays as it is. If anything fails, what had been done is taken back. What there was before
is remembered in a state file, for leave.

With --persist it also writes /etc/sysctl.d/60-lvx-realserver.conf, and for the
VIPs a file of what configures this host's network (systemd-networkd or
ifupdown). What it cannot write for you it says, with the line to add: the default
route of method nat, since that is a line in a file of yours, and for method tun the
command that has to run at boot, since a program does not outlive the kernel.`,
		Example: `  lvx realserver join --vip 192.0.2.100
  lvx realserver join --vip 192.0.2.100 --vip 192.0.2.101 --persist
  lvx realserver join --vip 192.0.2.100 --method tun --director 10.0.0.1 --interface eth0
  lvx realserver join --method nat --director 10.0.0.1,2001:db8::1`,
		Args: f.joinArgs,
		RunE: func(*cobra.Command, []string) error { return e.changeRealserver("join", f, realserver.Join) },
	}
	f.common(c)
	c.Flags().StringVar(&f.method, "method", string(lvs.DR), "forwarding method: dr, tun or nat (fullnat is not in this version)")
	c.Flags().StringSliceVar(&f.directors, "director", nil, "the directors' addresses; tun needs those that tunnels come from, nat the default gateway, at most one of each family; dr only checks them")
	c.Flags().StringSliceVar(&f.interfaces, "interface", nil, "tun: where tunnels come in (default all Ethernet interfaces that are up)")
	c.Flags().UintSliceVar(&f.ports, "tun-port", nil, fmt.Sprintf("tun: UDP ports of gue, besides %d", realserver.DefaultTunnelPort))
	c.Flags().BoolVar(&f.persist, "persist", false, "also after a reboot")
	return c
}

// joinArgs takes no arguments, and says which flags the method needs before they
// are looked at.
func (f *realserverFlags) joinArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return err
	}
	if f.method == string(lvs.NAT) {
		return nil
	}
	return c.MarkFlagRequired("vip")
}

func (e *Env) realserverLeaveCommand() *cobra.Command {
	f := &realserverFlags{}
	c := &cobra.Command{
		Use:   "leave [--vip A[,A...]]",
		Short: "Undo what join did, and only that",
		Long: `Undoes what join did, and only that: a VIP that was on lo before stays; a sysctl
gets back the value it had, and the default routes come back, unless somebody has
changed them since; the program that takes tunnels off goes. With --vip it undoes what was done for these VIPs; the sysctls
stay while another VIP needs them. The files of --persist go, or are written anew
for what is left.

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
		Short: "What is wanted and what is effective; exit 1 if anything is wrong",
		Long: `Tells for each VIP, each interface, each default route that join made, and the
program that takes tunnels off, what is wanted and what is effective, and the
command that mends what is wrong. Exit 1 if anything is. To look into the program
takes root. Without --vip it looks at the VIPs that have joined; if nothing has, at
those that somebody else put on lo.`,
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
	o := realserver.Options{Method: lvs.Method(f.method), Persist: f.persist, StatePath: f.state, Interfaces: f.interfaces}
	for _, port := range f.ports {
		if port < 1 || port > 65535 {
			return o, fmt.Errorf("--tun-port %d is not between 1 and 65535", port)
		}
		o.TunnelPorts = append(o.TunnelPorts, uint16(port))
	}
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
