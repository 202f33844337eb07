// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in a release: -X lvx/internal/cli.version=1.2.3
var version = "0.1.0-dev"

// Version returns the version, with the commit it was built from if the build
// knows it: for instance "0.1.0-dev+1a2b3c4d5e6f".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if commit == "" {
		return version
	}
	commit = commit[:min(12, len(commit))]
	if settings["vcs.modified"] == "true" {
		commit += ".modified"
	}
	return version + "+" + commit
}

func (e *Env) versionCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "version",
		Short: "The version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if asJSON {
				return printJSON(e.Out, []map[string]string{{"version": Version(), "go": runtime.Version(), "platform": platform}})
			}
			_, err := fmt.Fprintf(e.Out, "lvx %s (%s, %s)\n", Version(), runtime.Version(), platform)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
