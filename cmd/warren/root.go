package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// defaultState is the state directory that the service uses.
const defaultState = "/var/lib/warren"

// cli is one run of the command line: the machine and the global flags.
type cli struct {
	system
	state   string // --state
	network string // --network
	json    bool   // --json
}

// groups of commands in the help, in order.
const (
	groupStart   = "start"
	groupLook    = "look"
	groupMembers = "members"
	groupMachine = "machine"
)

// commands is the table of subcommands, one file each, in the order of the help.
var commands = []struct {
	group string
	make  func(*cli) *cobra.Command
}{
	{groupStart, newCreate},
	{groupStart, newInvite},
	{groupStart, newJoin},
	{groupStart, newUp},
	{groupStart, newDown},
	{groupStart, newLeave},
	{groupLook, newStatus},
	{groupLook, newPeers},
	{groupLook, newPing},
	{groupLook, newRoute},
	{groupLook, newMap},
	{groupLook, newTop},
	{groupLook, newDoctor},
	{groupMembers, newMembers},
	{groupMembers, newApprove},
	{groupMembers, newRevoke},
	{groupMembers, newAdmin},
	{groupMembers, newDevice},
	{groupMembers, newRename},
	{groupMembers, newPolicy},
	{groupMachine, newDaemon},
	{groupMachine, newVersion},
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, sys system) int {
	c := &cli{system: sys}
	root := newRoot(c)
	root.SetArgs(args)
	root.SetIn(sys.in)
	root.SetOut(sys.out)
	root.SetErr(sys.err)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	return c.report(err)
}

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "warren",
		Short: "A private network of your machines, without a server",
		Long: `Warren joins your machines into a private, encrypted network, without a server
or an account. One command here gives a code, one command there uses it:

  A$ sudo warren create home
  B$ sudo warren join CODE`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   onlyGroup,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cobra.EnableCommandSorting = false // the order of the table
	root.SuggestionsMinimumDistance = 2
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(helpTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd == root && cmd.Flags().NArg() > 0 { // the flags are of a command that does not exist
			return unknownCommand(cmd, cmd.Flags().Arg(0))
		}
		return usagef(cmd, "%v", err)
	})
	f := root.PersistentFlags()
	state := c.getenv("WARREN_STATE")
	if state == "" {
		state = defaultState
	}
	f.StringVar(&c.state, "state", state, "state `DIR`; one daemon has one (environment: WARREN_STATE)")
	f.StringVar(&c.network, "network", "", "`NAME` of the network, when there are several")
	f.BoolVar(&c.json, "json", false, "print JSON, with the fields of spec/60-api.md")
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		c.state, err = filepath.Abs(c.state)
		return err
	}
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Networks:"},
		&cobra.Group{ID: groupLook, Title: "How it goes:"},
		&cobra.Group{ID: groupMembers, Title: "Who belongs:"},
		&cobra.Group{ID: groupMachine, Title: "This machine:"},
	)
	root.SetHelpCommandGroupID(groupMachine)
	root.SetCompletionCommandGroupID(groupMachine)
	for _, entry := range commands {
		cmd := entry.make(c)
		cmd.GroupID = entry.group
		root.AddCommand(cmd)
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion")
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Short = "Tell more of a command or topic"
		case "completion":
			cmd.Short = "Print a script that completes commands in your shell"
		}
	}
	root.AddCommand(newExitCodes())
	must(root.RegisterFlagCompletionFunc("network", c.completeNetworks))
	return root
}

// onlyGroup marks commands that do nothing themselves, for the usage template.
var onlyGroup = map[string]string{"group": "yes"}

// group makes a command that only holds others.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Annotations = onlyGroup
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return cmd.Help()
	}
	cmd.AddCommand(subs...)
	return cmd
}

func must(err error) {
	if err != nil {
		panic("BUG: " + err.Error())
	}
}

// client returns the API of the daemon.
func (c *cli) client() *api.Client { return api.Dial(api.SocketPath(c.state)) }

// usageError is a mistake in the command line itself.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), "see: " + cmd.CommandPath() + " --help"}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	e := &usageError{fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+name), "see: " + cmd.CommandPath() + " --help"}
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		e.hint = "did you mean: " + cmd.CommandPath() + " " + strings.Join(near, " or ")
	}
	return e
}

// args checks the number of arguments; names says what they are, such as "MEMBER" or "[NETWORK]".
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		for i, n := range names {
			if i >= len(got) && !strings.HasPrefix(n, "[") {
				return &usageError{n + " is missing", "use: " + cmd.UseLine()}
			}
		}
		if len(got) > len(names) {
			return &usageError{fmt.Sprintf("what does %q mean here?", got[len(names)]), "use: " + cmd.UseLine()}
		}
		return nil
	}
}

// completeNetworks and completeMembers fill in names in the shell.
func (c *cli) completeNetworks(cmd *cobra.Command, _ []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if st, err := c.client().Status(cmd.Context()); err == nil {
		for _, n := range st.Networks {
			out = append(out, n.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeMembers(cmd *cobra.Command, got []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(got) == 0 {
		if m, err := c.client().Members(cmd.Context(), c.network); err == nil {
			for _, m := range m.Members {
				if !m.Self {
					out = append(out, m.Name)
				}
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// oneNetwork lets a command take the network as an argument too.
func (c *cli) oneNetwork(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.network != "" && c.network != args[0] {
		return usagef(cmd, "two networks are named: %s and %s", args[0], c.network)
	}
	c.network = args[0]
	return nil
}

const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`

const usageTemplate = `Usage:
{{- if not (index .Annotations "group")}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}{{range $g := .Groups}}

{{.Title}}{{range $cmds}}{{if and (eq .GroupID $g.ID) (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasHelpSubCommands}}

Topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" tells more of a command.{{end}}
`
