// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/config"
)

// code is how the code of a diagnostic is written.
var code = regexp.MustCompile(`(?i)^lvx[0-9]+$`)

func (e *Env) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND | CODE | codes]",
		Short:   "Help about a command, or about what check, plan and apply say",
		Long:    "Tells how a command is used, what the code of an error or a warning in a file\nmeans and what to do about it, or which codes there are.",
		Example: "  lvx help apply\n  lvx help LVX1001\n  lvx help codes",
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && strings.EqualFold(args[0], "codes"):
				return e.helpCodes()
			case len(args) > 0 && code.MatchString(args[0]):
				return e.helpTopics(args)
			}
			topic, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = unknownCommand(topic, rest)
			}
			if err != nil {
				return usageError("help: %s; see: lvx help", err)
			}
			topic.InitDefaultHelpFlag() // cobra adds them only to a command that runs
			topic.InitDefaultVersionFlag()
			return topic.Help()
		},
		ValidArgsFunction: e.completeFirst(func(ctx context.Context) []string {
			list := append(completeCode(ctx), "codes\tall codes")
			for _, c := range root.Commands() {
				if c.IsAvailableCommand() {
					list = append(list, c.Name()+"\t"+c.Short)
				}
			}
			return list
		}),
	}
}

// helpTopics prints the pages of codes.
func (e *Env) helpTopics(codes []string) error {
	var pages []string
	for _, code := range codes {
		topic, found := config.FindTopic(strings.ToUpper(code))
		if !found {
			return usageError("help: there is no code %q; list them with: lvx help codes", code)
		}
		heading := e.paint(bold, fmt.Sprintf("%s (%s): %s", topic.Code, topic.Severity, topic.Title))
		pages = append(pages, heading+"\n\n"+strings.TrimSpace(topic.Page)+"\n")
	}
	_, err := fmt.Fprint(e.Out, strings.Join(pages, "\n"))
	return err
}

// helpCodes lists the codes.
func (e *Env) helpCodes() error {
	t := e.newTable("CODE", "SEVERITY", "TITLE")
	for _, topic := range config.Topics() {
		c := yellow
		if topic.Severity == config.Error {
			c = red
		}
		if err := t.add(word(topic.Code), coloured(c, fmt.Sprint(topic.Severity)), word(topic.Title)); err != nil {
			return err
		}
	}
	return t.flush()
}
