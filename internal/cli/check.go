// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"lvx/internal/config"
	"lvx/internal/lvs"
)

func (e *Env) checkCommand() *cobra.Command {
	var s source
	var asJSON, schema bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Tell everything that is wrong with a file",
		Long: "Reads a file as plan and apply do and tells everything that is wrong with it,\neach with its place: errors, which keep it from being applied, and warnings.\nFILE may be -, standard input. It asks no daemon.\n\n" +
			"Each finding has a code; lvx help CODE explains it. Exit: 0 without errors, 1\nwith errors.",
		Example: "  lvx check /etc/lvx/lvx.yaml\n  lvx check --silence LVX1202 lvx.yaml\n  lvx check --schema > lvx.schema.json   # for editors",
		RunE: func(_ *cobra.Command, args []string) error {
			if schema {
				_, err := e.Out.Write(config.Schema())
				return err
			}
			s.path = args[0]
			return e.check(s, asJSON)
		},
	}
	s.command(e, c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of what was found")
	c.Flags().BoolVar(&schema, "schema", false, "print the file's JSON Schema instead")
	file := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if schema && len(args) == 0 {
			return nil
		}
		return file(c, args)
	}
	return c
}

func (e *Env) check(s source, asJSON bool) error {
	wanted, found, err := s.parse(e)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, found)
	} else {
		err = e.writeDiagnostics(found)
	}
	if err != nil {
		return err
	}
	if len(found.Errors()) > 0 {
		return &ExitError{Code: ExitFailed, Message: s.verdict(found) + "; explained by: " + pages(found)}
	}
	if asJSON {
		return nil
	}
	text := s.name() + ": fine: " + size(*wanted)
	if n := len(found); n > 0 {
		text += ", " + counted(uint64(n), "warning", "warnings")
	}
	_, err = fmt.Fprintln(e.Out, e.paint(green, text))
	return err
}

// size returns for instance "2 services, 5 real servers".
func size(c lvs.Configuration) string {
	servers := 0
	for _, s := range c.Services {
		servers += len(s.RealServers)
	}
	return counted(uint64(len(c.Services)), "service", "services") + ", " + counted(uint64(servers), "real server", "real servers")
}
