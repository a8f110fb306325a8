package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
)

// ErrNotRunning says that no daemon listens on the socket. Match it with errors.Is.
var ErrNotRunning = &Error{Code: CodeNotRunning, Message: "the daemon is not running", Hint: "start it with: sudo warren up"}

// maxReply is the limit of a reply in bytes: the roster of a large network.
const maxReply = 64 << 20

// Client calls a daemon. It is safe for concurrent use. Errors of the daemon are [*Error]. It implements [Backend].
type Client struct {
	socket string
	http   *http.Client
}

var _ Backend = (*Client)(nil)

// Dial returns a client of the daemon whose socket this is. It connects at each call, so the daemon may start later.
func Dial(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives: true,
	}}}
}

// Status calls [Backend.Status].
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "status", nil, &s)
}

// Create calls [Backend.Create].
func (c *Client) Create(ctx context.Context, r CreateRequest) (out CreateReply, err error) {
	return out, c.post(ctx, "create", r, &out)
}

// Up calls [Backend.Up].
func (c *Client) Up(ctx context.Context, r NetworkRequest) (out Status, err error) {
	return out, c.post(ctx, "up", r, &out)
}

// Down calls [Backend.Down].
func (c *Client) Down(ctx context.Context, r NetworkRequest) (out Status, err error) {
	return out, c.post(ctx, "down", r, &out)
}

// Leave calls [Backend.Leave].
func (c *Client) Leave(ctx context.Context, r LeaveRequest) (out LeaveReply, err error) {
	return out, c.post(ctx, "leave", r, &out)
}

// Rename calls [Backend.Rename].
func (c *Client) Rename(ctx context.Context, r RenameRequest) (out Network, err error) {
	return out, c.post(ctx, "rename", r, &out)
}

// Invite calls [Backend.Invite].
func (c *Client) Invite(ctx context.Context, r InviteRequest) (out InviteReply, err error) {
	return out, c.post(ctx, "invite", r, &out)
}

// Invites calls [Backend.Invites].
func (c *Client) Invites(ctx context.Context, network string) (out Invites, err error) {
	return out, c.get(ctx, "invites", inNetwork(network), &out)
}

// Members calls [Backend.Members].
func (c *Client) Members(ctx context.Context, network string) (out Members, err error) {
	return out, c.get(ctx, "members", inNetwork(network), &out)
}

// Pending calls [Backend.Pending].
func (c *Client) Pending(ctx context.Context, network string) (out PendingList, err error) {
	return out, c.get(ctx, "pending", inNetwork(network), &out)
}

// Approve calls [Backend.Approve].
func (c *Client) Approve(ctx context.Context, r MemberRequest) (out Member, err error) {
	return out, c.post(ctx, "approve", r, &out)
}

// Revoke calls [Backend.Revoke].
func (c *Client) Revoke(ctx context.Context, r RevokeRequest) (out RevokeReply, err error) {
	return out, c.post(ctx, "revoke", r, &out)
}

// Admins calls [Backend.Admins].
func (c *Client) Admins(ctx context.Context, network string) (out Admins, err error) {
	return out, c.get(ctx, "admins", inNetwork(network), &out)
}

// AdminAdd calls [Backend.AdminAdd].
func (c *Client) AdminAdd(ctx context.Context, r AdminRequest) (out Admin, err error) {
	return out, c.post(ctx, "admin/add", r, &out)
}

// AdminRemove calls [Backend.AdminRemove].
func (c *Client) AdminRemove(ctx context.Context, r AdminRemoveRequest) (out RevokeReply, err error) {
	return out, c.post(ctx, "admin/remove", r, &out)
}

// DeviceAdd calls [Backend.DeviceAdd].
func (c *Client) DeviceAdd(ctx context.Context, r DeviceRequest) (out DeviceReply, err error) {
	return out, c.post(ctx, "device/add", r, &out)
}

// Ping calls [Backend.Ping].
func (c *Client) Ping(ctx context.Context, r PingRequest) (out PingReply, err error) {
	q := inNetwork(r.Network)
	q.Set("member", r.Member)
	q.Set("timeout_ms", strconv.FormatInt(r.Timeout, 10))
	return out, c.get(ctx, "ping", q, &out)
}

// Route calls [Backend.Route].
func (c *Client) Route(ctx context.Context, r MemberRequest) (out RouteReply, err error) {
	q := inNetwork(r.Network)
	q.Set("member", r.Member)
	return out, c.get(ctx, "route", q, &out)
}

// Map calls [Backend.Map].
func (c *Client) Map(ctx context.Context, network string) (out MapReply, err error) {
	return out, c.get(ctx, "map", inNetwork(network), &out)
}

// Doctor calls [Backend.Doctor].
func (c *Client) Doctor(ctx context.Context, network string) (out Doctor, err error) {
	return out, c.get(ctx, "doctor", inNetwork(network), &out)
}

// Policy calls [Backend.Policy].
func (c *Client) Policy(ctx context.Context, network string) (out Policy, err error) {
	return out, c.get(ctx, "policy", inNetwork(network), &out)
}

// SetPolicy calls [Backend.SetPolicy].
func (c *Client) SetPolicy(ctx context.Context, r PolicyRequest) (out Policy, err error) {
	return out, c.post(ctx, "policy", r, &out)
}

// Stop calls [Backend.Stop].
func (c *Client) Stop(ctx context.Context) error {
	return c.post(ctx, "stop", struct{}{}, &struct{}{})
}

// Join calls [Backend.Join]. progress may be nil.
func (c *Client) Join(ctx context.Context, r JoinRequest, progress func(Progress)) (Network, error) {
	resp, err := c.do(ctx, http.MethodPost, "join", nil, r)
	if err != nil {
		return Network{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	d := json.NewDecoder(io.LimitReader(resp.Body, maxReply))
	for {
		var line streamLine
		if err := d.Decode(&line); err != nil {
			return Network{}, c.broken(ctx, err)
		}
		switch {
		case line.Error != nil:
			return Network{}, line.Error
		case line.Network != nil:
			return *line.Network, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}

func inNetwork(network string) url.Values {
	q := url.Values{}
	if network != "" {
		q.Set("network", network)
	}
	return q
}

func (c *Client) get(ctx context.Context, call string, q url.Values, out any) error {
	return c.call(ctx, http.MethodGet, call, q, nil, out)
}

func (c *Client) post(ctx context.Context, call string, in, out any) error {
	return c.call(ctx, http.MethodPost, call, nil, in, out)
}

func (c *Client) call(ctx context.Context, method, call string, q url.Values, in, out any) error {
	resp, err := c.do(ctx, method, call, q, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	// Fields that a newer daemon added are ignored.
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(out); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// do returns a reply with status 200, whose body the caller closes, or the error that the daemon sent.
func (c *Client) do(ctx context.Context, method, call string, q url.Values, in any) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "warren", Path: prefix + call, RawQuery: q.Encode()}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	var e Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&e); err != nil || e.Code == "" {
		return nil, Errorf(CodeInternal, "the daemon answered %s", resp.Status).Hintf("is another program listening on %s?", c.socket)
	}
	return nil, &e
}

// unreached says why there was no reply at all.
func (c *Client) unreached(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return Errorf(CodeDenied, "the daemon's socket %s may not be used by this user", c.socket).Hintf("run it with sudo")
	}
	return c.broken(ctx, err)
}

func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return Errorf(CodeStopping, "the daemon ended before it answered: %v", err).
		Hintf("see `warren status` and the daemon's log")
}
