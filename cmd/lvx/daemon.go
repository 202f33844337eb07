// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"lvx/internal/cli"
	"lvx/internal/config"
	"lvx/internal/dataplane"
	"lvx/internal/diagnose"
	"lvx/internal/director"
	"lvx/internal/lvs"
	"lvx/internal/server"
	"lvx/internal/store"
)

// daemonOptions are the flags of lvx director.
type daemonOptions struct {
	plane        dataplane.Options
	instance     string
	mode         string
	socket       string
	config       string
	state        string
	unloadOnExit bool
	log          *slog.Logger
	err          io.Writer // for what is wrong with the file
	given        func(flag string) bool
}

func directorCommand(env *cli.Env) *cobra.Command {
	var o daemonOptions
	command := &cobra.Command{
		Use:   "director",
		Short: "Run the director: load the data plane and answer on the socket",
		Long: `Runs the director in the foreground. It attaches to all Ethernet interfaces of
its network namespace, or to those named, and applies the file; without --config
it starts without services, which are then added with ipvsadm or lvx apply.

The file is applied at a start if it says something else than the file applied
last, or after a boot; changes made since with ipvsadm survive a restart. SIGHUP
applies it in any case. A file with an error is refused whole: at a start the last
good configuration is used, if there is one.

SIGTERM and SIGINT stop the daemon and leave the data plane forwarding: started
again, or killed and started again, it takes over what runs, and no packet,
connection or counter is lost. To end forwarding: lvx director unload.`,
		Example: `  lvx director --config /etc/lvx/lvx.yaml
  lvx director --interface eth0 --interface eth1
  lvx director --instance lab --unload-on-exit`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := o.check(command); err != nil {
				return err
			}
			o.socket = env.SocketPath()
			o.instance = env.Instance()
			o.state = filepath.Join(cmp.Or(o.state, env.Getenv("LVX_STATE"), stateDir), o.instance)
			o.given, o.err = command.Flags().Changed, env.Err
			o.log = slog.New(slog.NewTextHandler(env.Err, nil))
			return serve(o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.config, "config", "", "the file to apply, for instance /etc/lvx/lvx.yaml; the flags below win over it")
	flags.StringVar(&o.state, "state", "", "directory for history and last good file, one below it per instance (default $LVX_STATE, or "+stateDir+")")
	flags.StringSliceVar(&o.plane.Interfaces, "interface", nil, "interface to attach to; may be given several times (default: all Ethernet interfaces that are up)")
	flags.StringVar(&o.mode, "xdp", "auto", "XDP mode: auto (native where the driver can), native or generic")
	flags.Uint32Var(&o.plane.Connections, "connections", lvs.DefaultConnections, "room for so many connections of IPv4 and as many of IPv6, 96 bytes for one of each")
	flags.BoolVar(&o.unloadOnExit, "unload-on-exit", false, "end forwarding and remove every pin when the daemon stops")
	command.AddCommand(unloadCommand(env))
	return command
}

// stateDir is where instances keep what outlives their processes.
const stateDir = "/var/lib/lvx"

// check refuses flags that say nothing, before anything is touched.
func (o *daemonOptions) check(command *cobra.Command) error {
	usage := func(format string, a ...any) error {
		return &cli.ExitError{Code: cli.ExitUsage, Message: fmt.Sprintf(format, a...) + "; see: lvx director --help"}
	}
	if command.Flags().Changed("connections") && (o.plane.Connections == 0 || o.plane.Connections > lvs.MaxConnections) {
		return usage("--connections %d is not between 1 and %d", o.plane.Connections, lvs.MaxConnections)
	}
	if o.config != "" && !filepath.IsAbs(o.config) {
		absolute, err := filepath.Abs(o.config)
		if err != nil {
			return err
		}
		o.config = absolute // SIGHUP reads it again, wherever the daemon is then
	}
	if modes := []string{"auto", "native", "generic"}; !slices.Contains(modes, o.mode) {
		return usage("--xdp %q is not one of %s", o.mode, strings.Join(modes, ", "))
	}
	if slices.Contains(o.plane.Interfaces, "") {
		return usage("--interface names no interface")
	}
	return nil
}

func unloadCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "unload",
		Short: "End forwarding: detach the data plane and remove every pin",
		Long: `Detaches the data plane of an instance from every interface, turns on again the
offloads that lvx turned off, and removes every pin: nothing is left behind.
Connections are forgotten. Stop the daemon first.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			instance, err := dataplane.Acquire(dataplane.DefaultBPFFS, env.Instance())
			if err != nil {
				return err
			}
			defer instance.Release()
			if !instance.Loaded() {
				fmt.Fprintf(env.Out, "instance %s: nothing was loaded\n", env.Instance())
			}
			// A daemon that was killed leaves its socket.
			return errors.Join(instance.Unload(), server.RemoveUnused(env.SocketPath()))
		},
	}
}

// serve is the daemon: made and started in order, stopped in reverse.
func serve(o daemonOptions) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// From the first moment to the last: a closed terminal must not end the daemon.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)

	// The right to the instance first, and given back last: there is one daemon.
	instance, err := dataplane.Acquire(dataplane.DefaultBPFFS, o.instance)
	if err != nil {
		return err
	}
	defer instance.Release()

	memory, err := store.Open(store.Options{Dir: o.state, Encode: config.Marshal})
	if err != nil {
		return fmt.Errorf("%w; choose another directory with --state", err)
	}
	fresh := isFresh(instance, memory, o.log)
	file := readFile(o)
	if file.Err != nil && fresh && memory.State().Revision == 0 {
		return file.Err // there is nothing else to start with
	}
	settings := memory.State().Settings
	if file.Configuration != nil {
		settings = file.Configuration.Settings
	}

	listeners, closed, err := listen(o, settings)
	if err != nil {
		return err
	}
	defer listeners.close() // closed by Serve, unless it was not reached

	o.settle(settings)
	plane, err := instance.Open(o.plane)
	if err != nil {
		return err
	}
	// What is pinned goes on forwarding, unless it was asked to go.
	defer func() {
		plane.Close()
		if o.unloadOnExit {
			err = errors.Join(err, instance.Unload())
		}
	}()

	brain, err := director.New(director.Options{
		Plane: plane, Facts: plane, Store: memory, Settings: settings, Advise: diagnose.Host, Log: o.log,
	})
	if err != nil {
		return err
	}
	if err := brain.Start(ctx, file, fresh); err != nil {
		return err
	}
	for _, w := range closed {
		brain.Note(w)
	}
	answers := server.New(server.Options{
		Director: brain, Log: o.log, Version: cli.Version(), Instance: o.instance, NodeIPVS: settings.Metrics.NodeIPVS,
	})

	var keeping sync.WaitGroup
	keeping.Go(func() { plane.Run(ctx) })
	defer keeping.Wait() // before the plane is closed: it uses the maps
	defer stop()         // also when serving fails: nobody else ends Run

	o.log.Info("ready", "version", cli.Version(), "socket", o.socket)
	keeping.Go(func() { brain.Run(ctx) })
	keeping.Go(func() { watchdog(ctx) })
	keeping.Go(func() { followHangup(ctx, hangup, o, brain) })
	if listeners.metrics != nil {
		keeping.Go(func() {
			if err := answers.ServeMetrics(ctx, listeners.metrics); err != nil {
				o.log.Error("serve metrics", "err", err)
			}
		})
	}
	notify(daemon.SdNotifyReady)
	defer notify(daemon.SdNotifyStopping)
	return answers.Serve(ctx, listeners.api...)
}

// isFresh tells whether the tables have to be filled: nothing is pinned, or what is
// was left by a start that did not come to its end. Until it does, that is noted.
func isFresh(instance *dataplane.Instance, memory *store.Store, log *slog.Logger) bool {
	state := memory.State()
	if instance.Loaded() && (state.Settled || state.Generation == 0) {
		return false // without a generation the state directory is new, not the tables
	}
	state.Settled = false
	if err := memory.Save(state); err != nil {
		log.Error("note that the tables are empty", "err", err)
	}
	return true
}

// settle takes the settings of the file that no flag says otherwise.
func (o *daemonOptions) settle(s lvs.Settings) {
	if !o.given("interface") {
		o.plane.Interfaces = s.Interfaces
	}
	if !o.given("connections") {
		o.plane.Connections = s.Capacity.Connections
	}
	if !o.given("xdp") {
		o.mode = cmp.Or(s.XDP, string(dataplane.Auto))
	}
	o.plane.Mode = dataplane.Mode(o.mode)
	o.plane.Services, o.plane.RealServers = s.Capacity.Services, s.Capacity.RealServers
	o.plane.MHTable = s.MHTable
	o.plane.Log = o.log
}

// notify tells systemd, if it started us.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// watchdog tells systemd that we live, as often as it wants.
func watchdog(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	beat := time.NewTicker(interval / 2)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			notify(daemon.SdNotifyWatchdog)
		}
	}
}
