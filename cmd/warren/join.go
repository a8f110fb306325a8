package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/wire"
)

func newJoin(c *cli) *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "join [CODE]",
		Short: "Join a network with a code",
		Long: `Join the network that the code is for, and bring it up. The daemon is started when
none runs. Without CODE, or with -, the code is read from the terminal or the
standard input, so that it stands neither in the list of processes nor in the
history of the shell.

When the code is one that an admin must approve, this waits for it; it can be
interrupted, for the daemon goes on waiting.`,
		Example: `  sudo warren join
  sudo warren join CODE --as laptop
  ssh alice sudo warren invite --json | jq -r .code | sudo warren join -`,
		Args: args("[CODE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := c.nodeName(as)
			if err != nil {
				return err
			}
			text, err := c.readCode(args)
			if err != nil {
				return err
			}
			if err := checkCode(text, c.now()); err != nil {
				return err
			}
			if err := c.ensureDaemon(cmd.Context()); err != nil {
				return err
			}
			return c.join(cmd.Context(), api.JoinRequest{Code: text, Name: name})
		},
	}
	asFlag(cmd, &as)
	return cmd
}

func (c *cli) join(ctx context.Context, r api.JoinRequest) error {
	pending := false
	n, err := c.client().Join(ctx, r, func(p api.Progress) {
		c.note("%s", clean(p.Text))
		pending = pending || p.Stage == api.StagePending
	})
	if err != nil {
		if pending && errors.Is(err, context.Canceled) {
			c.note("The daemon goes on waiting to be approved: see `warren status`.")
		}
		return err
	}
	return c.show(n, func() {
		c.printf("This machine is %s in the network %s.\n\n", n.Self.Name, n.Name)
		c.printSelf(n)
		if n.Self.Name != r.Name {
			c.printf("\nThe name %s was taken. Choose another with:  sudo warren rename NAME\n", r.Name)
		}
		for _, p := range n.Peers {
			if !p.Device && len(p.Addresses) > 0 {
				c.printf("\nTry:  ping %s   (that is %s)\n", p.Addresses[0], p.Name)
				break
			}
		}
	})
}

// maxCodeInput is the limit of what is read for a code, in bytes.
const maxCodeInput = 4096

// readCode takes the code from the argument, the terminal or the standard input.
func (c *cli) readCode(args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		return strings.TrimSpace(args[0]), nil
	}
	in := io.LimitReader(c.in, maxCodeInput)
	if c.terminal() {
		fmt.Fprint(c.err, "Code: ") //nolint:errcheck // nothing can be done
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the code: %w", err)
		}
		return strings.TrimSpace(line), nil
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return "", fmt.Errorf("read the code: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// checkCode finds what is wrong with a code before anything is sent.
func checkCode(text string, now time.Time) error {
	if text == "" {
		return api.Errorf(api.CodeCodeInvalid, "there is no code").
			Hintf("get one on a machine of the network: sudo warren invite")
	}
	code, err := wire.ParseCode(text)
	switch {
	case errors.Is(err, wire.ErrCodeVersion):
		return api.Errorf(api.CodeCodeInvalid, "%v", err).Hintf("update warren on this machine")
	case errors.Is(err, wire.ErrCodeDamaged):
		return api.Errorf(api.CodeCodeInvalid, "%v", err).Hintf("copy it again, whole; the code itself is not used up")
	case err != nil:
		return api.Errorf(api.CodeCodeInvalid, "%v", err).Hintf("get one on a machine of the network: sudo warren invite")
	}
	if end := time.Unix(code.NotAfter, 0); !now.Before(end) {
		return api.Errorf(api.CodeCodeExpired, "the code expired %s ago, at %s", humanDuration(now.Sub(end)), when(api.At(end))).
			Hintf("get a new one: sudo warren invite; or is this machine's clock wrong? It says %s", when(api.At(now)))
	}
	return nil
}
