package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

// Exit codes (spec/60-api.md#exit-codes). They are never given another meaning.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotRunning  = 3
	exitDenied      = 4
	exitNotFound    = 5
	exitConflict    = 6
	exitBadCode     = 7
	exitUnreachable = 8
	exitInterrupted = 130
)

// exitOf maps the API's error codes; what is not here is exitFailed.
var exitOf = map[api.Code]int{
	api.CodeBadRequest: exitUsage, api.CodeAmbiguous: exitUsage,
	api.CodeNotRunning: exitNotRunning,
	api.CodeDenied:     exitDenied, api.CodeNoRight: exitDenied,
	api.CodeNoSuchNetwork: exitNotFound, api.CodeNoSuchMember: exitNotFound, api.CodeNoSuchPending: exitNotFound,
	api.CodeNameTaken: exitConflict, api.CodeAlreadyMember: exitConflict, api.CodePoolConflict: exitConflict,
	api.CodeLastAdmin: exitConflict, api.CodeAddressInUse: exitConflict, api.CodeAlreadyRunning: exitConflict,
	api.CodeBusy: exitConflict, api.CodeNetworkDown: exitConflict,
	api.CodeCodeInvalid: exitBadCode, api.CodeCodeExpired: exitBadCode, api.CodeCodeUsed: exitBadCode, api.CodeCodeRevoked: exitBadCode,
	api.CodeNoIntroducer: exitUnreachable,
}

var (
	errInterrupted = errors.New("interrupted")
	// errQuiet fails with exitFailed when all has been said.
	errQuiet = errors.New("failed")
)

// report shows err, if any, and returns the exit code.
func (c *cli) report(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errQuiet):
		return exitFailed
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(c.err, "interrupted")
		return exitInterrupted
	}
	e, ok := errors.AsType[*api.Error](err)
	if u, usage := errors.AsType[*usageError](err); usage {
		e = api.Errorf(api.CodeBadRequest, "%s", u.message).Hintf("%s", u.hint)
	} else if !ok {
		e = api.Errorf(api.CodeInternal, "%s", err.Error())
	}
	fmt.Fprintf(c.err, "error: %s\n", clean(e.Message))
	if e.Hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", clean(e.Hint))
	}
	if c.json {
		c.printJSON(e) //nolint:errcheck // nothing more can be said
	}
	if code, ok := exitOf[e.Code]; ok {
		return code
	}
	return exitFailed
}

func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Exit codes:

    0  done
    1  it failed: see the message (ping: no answer at all)
    2  the command line is wrong: an unknown command or flag, a bad value,
       or a name that fits several things
    3  the daemon is not running
    4  not allowed: by this machine (root is needed), or by the network
       (this member has not got the right)
    5  there is no such network or member
    6  it is in conflict with what is there: a name taken, already a member,
       a pool or port in use, the last admin leaving, a network that is down
    7  the code is refused: mistyped, expired, used or revoked
    8  nobody could be reached to join by
  130  interrupted

With --json an error is also printed as {"error", "code", "hint"} on the
standard output; "code" tells more exactly what it was.`,
	}
}
