package api

import (
	"context"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"

	"github.com/tailscale/peercred"
)

// maxConns is the limit of connections that one user has at a time; root and the daemon's own user have none.
const maxConns = 32

// caller is who sits at the other end of a connection.
type caller struct {
	uid   string // "" = not known
	known bool
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// identify asks the system who is at the other end of c.
func identify(c net.Conn) caller {
	creds, err := peercred.Get(c)
	if err != nil {
		return caller{}
	}
	uid, ok := creds.UserID()
	return caller{uid: uid, known: ok}
}

// privileged reports whether c is root or the user that the daemon runs as.
func (c caller) privileged() bool {
	return c.known && (c.uid == "0" || c.uid == strconv.Itoa(os.Geteuid()))
}

// mayChange reports whether c may make changing calls (spec/60-api.md#access). Where the system does not tell who calls,
// the socket's mode has admitted only those who may.
func mayChange(c caller, group string) bool {
	if !hasPeerCreds {
		return true
	}
	return c.privileged() || c.known && group != "" && inGroup(c.uid, group)
}

// inGroup looks the user up at each call, so that a change of the group counts at once.
func inGroup(uid, group string) bool {
	g, err := user.LookupGroup(group)
	if err != nil {
		return false
	}
	u, err := user.LookupId(uid)
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	return err == nil && slices.Contains(ids, g.Gid)
}

// listener asks who calls when a connection comes, and keeps one user from taking all of them.
type listener struct {
	net.Listener
	identify func(net.Conn) caller

	mu    sync.Mutex
	conns map[string]int // by user id
}

// Accept returns the next connection of a user who has not too many; others are closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := l.identify(c)
		if l.take(who) {
			return &conn{Conn: c, who: who, drop: sync.OnceFunc(func() { l.drop(who) })}, nil
		}
		c.Close() //nolint:errcheck // nothing was said on it
	}
}

func (l *listener) take(c caller) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[c.uid] >= maxConns && !c.privileged() {
		return false
	}
	l.conns[c.uid]++
	return true
}

func (l *listener) drop(c caller) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[c.uid]--; l.conns[c.uid] <= 0 {
		delete(l.conns, c.uid)
	}
}

// conn carries its caller from Accept to the requests.
type conn struct {
	net.Conn
	who  caller
	drop func()
}

// Close gives the place of the connection back.
func (c *conn) Close() error {
	c.drop()
	return c.Conn.Close()
}

func connContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, callerKey{}, c.who)
	}
	return ctx
}
