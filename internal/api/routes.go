package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// route is one call of the API (spec/60-api.md#calls).
type route struct {
	method, path string
	change       bool // changes something, or answers with a secret
	// Exactly one of the two is set. ready is called when the request has been read.
	call   func(r *http.Request, b Backend, ready func()) (any, error)
	stream func(r *http.Request, b Backend, ready func(), progress func(Progress)) (Network, error)
}

// routes is the whole API.
var routes = []route{
	read("status", func(ctx context.Context, b Backend, _ query) (Status, error) { return b.Status(ctx) }),
	read("members", func(ctx context.Context, b Backend, q query) (Members, error) { return b.Members(ctx, q.network()) }),
	read("pending", func(ctx context.Context, b Backend, q query) (PendingList, error) { return b.Pending(ctx, q.network()) }),
	read("invites", func(ctx context.Context, b Backend, q query) (Invites, error) { return b.Invites(ctx, q.network()) }),
	read("admins", func(ctx context.Context, b Backend, q query) (Admins, error) { return b.Admins(ctx, q.network()) }),
	read("ping", ping),
	read("route", func(ctx context.Context, b Backend, q query) (RouteReply, error) {
		m := MemberRequest{Network: q.network(), Member: q.r.URL.Query().Get("member")}
		if err := m.check(); err != nil {
			return RouteReply{}, err
		}
		return b.Route(ctx, m)
	}),
	read("map", func(ctx context.Context, b Backend, q query) (MapReply, error) { return b.Map(ctx, q.network()) }),
	read("doctor", func(ctx context.Context, b Backend, q query) (Doctor, error) { return b.Doctor(ctx, q.network()) }),
	read("policy", func(ctx context.Context, b Backend, q query) (Policy, error) { return b.Policy(ctx, q.network()) }),
	change("create", Backend.Create),
	{method: http.MethodPost, path: prefix + "join", change: true, stream: join},
	change("up", Backend.Up),
	change("down", Backend.Down),
	change("leave", Backend.Leave),
	change("rename", Backend.Rename),
	change("invite", Backend.Invite),
	change("approve", Backend.Approve),
	change("revoke", Backend.Revoke),
	change("admin/add", Backend.AdminAdd),
	change("admin/remove", Backend.AdminRemove),
	change("device/add", Backend.DeviceAdd),
	change("policy", Backend.SetPolicy),
	change("stop", func(b Backend, ctx context.Context, _ struct{}) (struct{}, error) { return struct{}{}, b.Stop(ctx) }),
}

// prefix begins every path; the number grows only when a field or call is taken away.
const prefix = "/v1/"

// checker is a request that knows its form.
type checker interface{ check() error }

// query is the parameters of a reading call.
type query struct{ r *http.Request }

func (q query) network() string { return q.r.URL.Query().Get("network") }

func read[T any](name string, f func(context.Context, Backend, query) (T, error)) route {
	return route{method: http.MethodGet, path: prefix + name,
		call: func(r *http.Request, b Backend, ready func()) (any, error) {
			ready()
			return f(r.Context(), b, query{r})
		}}
}

func change[Q, T any](name string, f func(Backend, context.Context, Q) (T, error)) route {
	return route{method: http.MethodPost, path: prefix + name, change: true,
		call: func(r *http.Request, b Backend, ready func()) (any, error) {
			q, err := request[Q](r)
			if err != nil {
				return nil, err
			}
			ready()
			return f(b, r.Context(), q)
		}}
}

// request reads the body and checks its form (spec/60-api.md#requests).
func request[Q any](r *http.Request) (Q, error) {
	var q Q
	if err := decode(r.Body, &q); err != nil {
		return q, err
	}
	if c, ok := any(&q).(checker); ok {
		return q, c.check()
	}
	return q, nil
}

func join(r *http.Request, b Backend, ready func(), progress func(Progress)) (Network, error) {
	q, err := request[JoinRequest](r)
	if err != nil {
		return Network{}, err
	}
	ready()
	return b.Join(r.Context(), q, progress)
}

func ping(ctx context.Context, b Backend, q query) (PingReply, error) {
	v := q.r.URL.Query()
	p := PingRequest{Network: v.Get("network"), Member: v.Get("member")}
	if t := v.Get("timeout_ms"); t != "" {
		ms, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return PingReply{}, Errorf(CodeBadRequest, "timeout_ms %q is not a number", t)
		}
		p.Timeout = ms
	}
	if err := p.check(); err != nil {
		return PingReply{}, err
	}
	return b.Ping(ctx, p)
}

const defaultPingTimeout = time.Second
