// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"lvx/internal/config"
)

// completionWait bounds how long a completion waits for the daemon: a shell that
// hangs at the tab key is worse than one that knows nothing.
const completionWait = 300 * time.Millisecond

// completer returns what a word may become, each with a description after a tab.
// The shell picks those that begin as the word does.
type completer func(context.Context) []string

// complete says how the values of a flag are completed.
func (e *Env) complete(c *cobra.Command, flag string, words completer) {
	complete := func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return words(c.Context()), cobra.ShellCompDirectiveNoFileComp
	}
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the command has no such flag
	}
}

// completeFirst completes a command's first argument.
func (e *Env) completeFirst(words completer) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words(c.Context()), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFile lets the shell complete the one file that a command takes.
func completeFile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completeWords completes with fixed words.
func completeWords[T ~string](words ...T) completer {
	return func(context.Context) (list []string) {
		for _, w := range words {
			list = append(list, string(w))
		}
		return list
	}
}

// completeCode completes with the codes of diagnostics.
func completeCode(context.Context) (list []string) {
	for _, t := range config.Topics() {
		list = append(list, t.Code+"\t"+t.Title)
	}
	return list
}

// completeService completes with the services that the director has.
func (e *Env) completeService(ctx context.Context) (list []string) {
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	client := e.client()
	defer client.Close()
	services, err := client.Services(ctx)
	if err != nil {
		return nil // then there is nothing to offer
	}
	for _, s := range services {
		key := s.Protocol.String() + "/" + s.Address.String()
		list = append(list, key+"\t"+s.Name)
		if s.Name != "" {
			list = append(list, s.Name+"\t"+key)
		}
	}
	return list
}

// completeRealServer completes with the addresses of the real servers.
func (e *Env) completeRealServer(ctx context.Context) (list []string) {
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	client := e.client()
	defer client.Close()
	servers, err := client.RealServers(ctx)
	if err != nil {
		return nil
	}
	for _, r := range servers {
		list = append(list, r.Address.String())
	}
	slices.Sort(list)
	return slices.Compact(list) // one may answer for several services
}
