// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the help.
const (
	groupRead    = "read"
	groupMachine = "machine"
	groupOther   = "other"
)

// Root builds the tree of commands. extra are those that cannot live here.
func (e *Env) Root(extra []*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:           "lvx",
		Short:         "A layer-4 load balancer: Linux Virtual Server on eBPF",
		Long:          "lvx is a Linux Virtual Server on eBPF: a director takes the packets of a VIP\nand gives each connection to one of its real servers.\n\nNouns read, verbs change. Called as ipvsadm it is ipvsadm.",
		Version:       Version(),
		SilenceErrors: true, // Run prints them
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("lvx {{.Version}}\n")
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError("%s: %s; see: %s --help", c.CommandPath(), err, c.CommandPath())
	})
	root.PersistentFlags().StringVar(&e.socket, "socket", "", "the daemon's socket (default $LVX_SOCKET, or "+RuntimeDir+"/INSTANCE.sock)")
	root.PersistentFlags().StringVar(&e.instance, "instance", "", "the daemon's instance (default "+DefaultInstance+")")
	root.AddGroup(
		&cobra.Group{ID: groupRead, Title: "What the director has and does (changes nothing):"},
		&cobra.Group{ID: groupMachine, Title: "This machine:"},
		&cobra.Group{ID: groupOther, Title: "Besides:"},
	)
	e.addCommands(root, extra)
	e.strict(root)
	return root
}

func (e *Env) addCommands(root *cobra.Command, extra []*cobra.Command) {
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add(groupRead, e.servicesCommand(), e.realServersCommand(), e.connectionsCommand(), e.reasonsCommand(), e.statusCommand())
	add(groupMachine, extra...)
	add(groupMachine, e.ipvsadmCommand(), e.realserverCommand(), e.labCommand())
	add(groupOther, e.versionCommand())
	root.AddCommand(e.labHiddenCommands()...)
	root.SetHelpCommand(e.helpCommand(root))
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
}

// strict makes wrong usage an error that says so (exit 2), in every command:
// cobra tells it apart from a command's own failure nowhere else.
func (e *Env) strict(c *cobra.Command) {
	if c.HasSubCommands() {
		c.Args = unknownCommand
	}
	if !c.Runnable() {
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	valid := c.Args
	if valid == nil {
		valid = cobra.ArbitraryArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := firstError(
			func() error { return valid(c, args) },
			c.ValidateRequiredFlags,
			c.ValidateFlagGroups,
			e.validateInstance,
		); err != nil {
			return usageError("%s: %s; see: %s --help", c.CommandPath(), err, c.CommandPath())
		}
		return nil
	}
	for _, sub := range c.Commands() {
		e.strict(sub)
	}
}

func firstError(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

// validateInstance keeps an instance's name from leaving its directories.
func (e *Env) validateInstance() error {
	if e.instance != "" && !instanceName.MatchString(e.instance) {
		return fmt.Errorf("instance %q is not 1 to 32 letters, digits or _ -", e.instance)
	}
	return nil
}

// unknownCommand is the Args of a command that has others below it: a word that
// is none of them is a mistake.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	// 2 is cobra's own default, which it sets only on its own way to here.
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q, did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func (e *Env) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about a command",
		RunE: func(_ *cobra.Command, args []string) error {
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
	}
}

// ipvsadmCommand hands its arguments over as they are: ipvsadm's grammar is its
// own. Only our flags in front are taken off.
func (e *Env) ipvsadmCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "ipvsadm ...",
		Short:              "ipvsadm's command line, as it is when called by the name ipvsadm",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := RunIPVSAdm(e, e.takeOwnFlags(args)); code != ExitDone {
				return &ExitError{Code: code}
			}
			return nil
		},
	}
}

// takeOwnFlags reads --socket and --instance at the front of args and returns
// the rest.
func (e *Env) takeOwnFlags(args []string) []string {
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		into := map[string]*string{"--socket": &e.socket, "--instance": &e.instance}[name]
		switch {
		case into == nil:
			return args
		case joined:
			*into, args = value, args[1:]
		case len(args) == 1:
			return args
		default:
			*into, args = args[1], args[2:]
		}
	}
	return args
}
