// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"lvx/internal/config"
	"lvx/internal/director"
	"lvx/internal/lvs"
)

// file is what --config named, as it was read.
type file struct {
	name          string
	configuration *lvs.Configuration // nil if there is none, or it is wrong
	err           error
}

// readFile reads the file and tells at once what is wrong with it, all of it.
func readFile(o daemonOptions) (f file) {
	f.name = o.config
	if o.config == "" {
		return f
	}
	text, err := os.ReadFile(o.config)
	if err != nil {
		f.err = fmt.Errorf("read the file: %w", err)
		return f
	}
	configuration, found := config.Parse(o.config, text)
	if err := found.Write(o.err, func(_ config.Severity, text string) string { return text }); err != nil {
		o.log.Warn("tell what is wrong with the file", "err", err)
	}
	f.configuration, f.err = configuration, found.Err()
	return f
}

// start brings the director to where the file, or what was before, wants it.
func (f file) start(ctx context.Context, brain *director.Director, fresh bool) error {
	err := brain.Start(ctx, f.configuration, f.name, fresh)
	if err == nil {
		err = f.err
	}
	if err == nil {
		return nil
	}
	if !fresh {
		// Forwarding goes on with the tables as they are: an operator who is not let
		// in could not even look.
		brain.NoteFile(f.name, err)
		return nil
	}
	if last := brain.Restore("start without the file, which cannot be used"); last != nil {
		return errors.Join(err, last)
	}
	brain.NoteFile(f.name, err)
	return nil
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
	if f.err != nil {
		brain.Refuse(request, f.err)
		brain.NoteFile(f.name, f.err)
		return
	}
	if err := brain.ConfigureFile(ctx, *f.configuration, request); err != nil {
		brain.NoteFile(f.name, err)
	}
}
