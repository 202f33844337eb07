// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/config"
)

// The groups of commands in the help.
const (
	groupRead    = "read"
	groupChange  = "change"
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
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return wrongUsage(c, flagError(c, err)) })
	root.PersistentFlags().StringVar(&e.socket, "socket", "", "the daemon's socket (default $LVX_SOCKET, or "+RuntimeDir+"/INSTANCE.sock)")
	root.PersistentFlags().StringVar(&e.instance, "instance", "", "the daemon's instance (default "+DefaultInstance+")")
	root.AddGroup(
		&cobra.Group{ID: groupRead, Title: "What the director has and does (changes nothing):"},
		&cobra.Group{ID: groupChange, Title: "The file, and what was applied:"},
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
	add(groupRead, e.servicesCommand(), e.realServersCommand(), e.connectionsCommand(), e.neighboursCommand(),
		e.reasonsCommand(), e.statusCommand(), e.eventsCommand(), e.historyCommand())
	add(groupChange, e.checkCommand(), e.planCommand(), e.applyCommand(), e.confirmCommand(), e.rollbackCommand(), e.exportCommand())
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

// usageFails is the annotation of a command whose exit code for wrong usage is that
// of a failure, since it gives ExitUsage another meaning.
const usageFails = "usage-fails"

// wrongUsage is a usage error of a command, which it names; Run says lvx itself.
func wrongUsage(c *cobra.Command, err error) error {
	where := ""
	if c.HasParent() {
		where = strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ") + ": "
	}
	code := ExitUsage
	if _, fails := c.Annotations[usageFails]; fails {
		code = ExitFailed
	}
	return &ExitError{Code: code, Message: fmt.Sprintf("%s%s; see: %s --help", where, err, c.CommandPath())}
}

// invalidValue is how cobra's flags begin to say that a value cannot be read; how
// they end is strconv's.
var invalidValue = regexp.MustCompile(`^invalid argument (".*") for "(?:-., )?--([^"]+)" flag: `)

// flagError words an error of the flags for people.
func flagError(c *cobra.Command, err error) error {
	parts := invalidValue.FindStringSubmatch(err.Error())
	if parts == nil {
		return err
	}
	flag := c.Flag(parts[2])
	if flag == nil {
		return err
	}
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("--%s %s is out of range", flag.Name, parts[1])
	}
	switch kind := flag.Value.Type(); {
	case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint"):
		return fmt.Errorf("--%s %s is not a number", flag.Name, parts[1])
	case kind == "bool":
		return fmt.Errorf("--%s %s is not true or false", flag.Name, parts[1])
	case kind == "duration":
		return fmt.Errorf("--%s %s is not a duration such as 30s", flag.Name, parts[1])
	}
	return err
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
	if c.ValidArgsFunction == nil && !c.DisableFlagParsing && valid(c, []string{"x"}) != nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := firstError(
			func() error { return unexpected(valid, c, args) },
			c.ValidateRequiredFlags,
			c.ValidateFlagGroups,
			e.validateInstance,
		); err != nil {
			return wrongUsage(c, err)
		}
		return nil
	}
	for _, sub := range c.Commands() {
		e.strict(sub)
	}
}

// unexpected names the argument that is one too many, which cobra calls a command
// or counts.
func unexpected(valid cobra.PositionalArgs, c *cobra.Command, args []string) error {
	err := valid(c, args)
	if err == nil || c.HasSubCommands() {
		return err
	}
	for i, arg := range args {
		if valid(c, args[:i]) == nil && valid(c, args[:i+1]) != nil {
			return fmt.Errorf("unexpected argument %q", arg)
		}
	}
	return err
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
	if near := suggestions(c, args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q, did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// suggestions returns the commands below c that the word may have meant: those
// that it begins, and those two slips away; of short words all are near each
// other, so there it is one. cobra's own counts jion for join as two.
func suggestions(c *cobra.Command, word string) (names []string) {
	word = strings.ToLower(word)
	for _, sub := range c.Commands() {
		name, most := sub.Name(), 2
		if min(len(word), len(name)) <= 4 {
			most = 1
		}
		begun := word != "" && strings.HasPrefix(name, word)
		if sub.IsAvailableCommand() && (begun || config.Slips(word, name) <= most) {
			names = append(names, name)
		}
	}
	return names
}

// ipvsadmCommand hands its arguments over as they are: ipvsadm's grammar is its
// own. Only our flags in front are taken off.
func (e *Env) ipvsadmCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "ipvsadm ...",
		Short:              "ipvsadm's command line, as it is when called by the name ipvsadm",
		Long:               ipvsadmHelp,
		Example:            "  lvx ipvsadm -Ln --rate\n  lvx ipvsadm -L --json\n  lvx ipvsadm -R --dry-run < rules\n  ipvsadm-restore --atomic < rules",
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
