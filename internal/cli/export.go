// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/config"
	"lvx/internal/lvs"
)

func (e *Env) exportCommand() *cobra.Command {
	var path string
	var revision uint64
	var asJSON bool
	c := &cobra.Command{
		Use:     "export",
		Short:   "Print what the director has as a file",
		Long:    "Prints the configuration as it is now, whoever made it, as a file: applying it\nwould change nothing. With --revision it is one of those that can be gone back\nto.",
		Example: "  lvx export -o /etc/lvx/lvx.yaml\n  lvx export --revision 4 | lvx plan -",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.export(c.Context(), revision, path, asJSON)
		},
	}
	c.Flags().StringVarP(&path, "output", "o", "-", "write to this file, in the place of what is there")
	c.Flags().Uint64Var(&revision, "revision", 0, "print this revision, as lvx history --revisions has it")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of one configuration")
	e.complete(c, "revision", e.completeRevision)
	return c
}

func (e *Env) export(ctx context.Context, revision uint64, path string, asJSON bool) error {
	client := e.client()
	defer client.Close()
	have, from, err := e.exported(ctx, client, revision)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, []lvs.Configuration{have})
	}
	text, err := config.Marshal(have)
	if err != nil {
		return fmt.Errorf("write it as a file: %w", err)
	}
	text = fmt.Appendf(nil, "# %s\n%s", from, text)
	if path == "-" {
		_, err = e.Out.Write(text)
		return err
	}
	return replaceFile(path, text)
}

// exported returns a configuration and says which it is.
func (e *Env) exported(ctx context.Context, client *api.Client, revision uint64) (have lvs.Configuration, from string, err error) {
	status, err := client.Status(ctx)
	if err != nil {
		return have, "", err
	}
	from = "Instance " + status.Instance
	if revision == 0 {
		have, generation, err := client.Configuration(ctx)
		return have, fmt.Sprintf("%s, generation %d, %s, by lvx export.", from, generation, stamp(e.clock())), err
	}
	list, err := client.Revisions(ctx)
	if err != nil {
		return have, "", err
	}
	at := slices.IndexFunc(list, func(r lvs.Revision) bool { return r.Number == revision })
	if at < 0 {
		return have, "", fmt.Errorf("revision %d: %w", revision, lvs.ErrNoRevision)
	}
	r := list[at]
	from = fmt.Sprintf("%s, revision %d, %s by %s: %s.", from, r.Number, stamp(r.Time), printable(r.Who), printable(r.What))
	return r.Configuration, from, nil
}

// stamp is a moment that means the same everywhere.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// replaceFile writes a file so that there is the old one or the new one, whole. A
// link, or what is no file, is written through.
func replaceFile(path string, text []byte) (err error) {
	mode := fs.FileMode(0o644)
	if old, err := os.Lstat(path); err == nil {
		if !old.Mode().IsRegular() {
			return os.WriteFile(path, text, mode)
		}
		mode = old.Mode().Perm()
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	defer file.Close()
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := firstError(func() error { return file.Chmod(mode) }, file.Sync, file.Close); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
