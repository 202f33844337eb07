// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"lvx/internal/config"
	"lvx/internal/director"
	"lvx/internal/lvs"
)

// readFile reads the file and tells at once what is wrong with it, all of it.
func readFile(o daemonOptions) (f director.File) {
	f.Name = o.config
	if o.config == "" {
		return f
	}
	text, err := os.ReadFile(o.config)
	if err != nil {
		f.Err = fmt.Errorf("read the file: %w", err)
		return f
	}
	configuration, found := config.Parse(o.config, text)
	if err := found.Write(o.err, func(_ config.Severity, text string) string { return text }); err != nil {
		o.log.Warn("tell what is wrong with the file", "err", err)
	}
	f.Configuration, f.Err = configuration, found.Err()
	return f
}

// followHangup applies the file again with every SIGHUP.
func followHangup(ctx context.Context, hangup <-chan os.Signal, o daemonOptions, brain *director.Director) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		if o.config == "" {
			o.log.Info("SIGHUP: there is no file to apply; start with --config")
			continue
		}
		notify(daemon.SdNotifyReloading)
		reload(ctx, o, brain)
		notify(daemon.SdNotifyReady)
	}
}

// reload applies the file. What becomes of it is in the log and in the history.
func reload(ctx context.Context, o daemonOptions, brain *director.Director) {
	request := lvs.Request{Who: "SIGHUP", What: "apply " + o.config}
	f := readFile(o)
	if f.Err != nil {
		brain.Refuse(request, f.Err)
		brain.NoteFile(f.Name, f.Err)
		return
	}
	if err := brain.ConfigureFile(ctx, *f.Configuration, request); err != nil {
		brain.NoteFile(f.Name, err)
	}
}
