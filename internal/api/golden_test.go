package api

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The JSON of each reply, as scripts see it: spec/60-api.md#stability, and no list is null: spec/60-api.md#values. A changed line here breaks somebody's script.
func TestGolden(t *testing.T) {
	b, ctx := &fakeBackend{}, context.Background()
	reply := func(v any, err error) any {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, v := range map[string]any{
		"status":       reply(b.Status(ctx)),
		"create":       reply(b.Create(ctx, CreateRequest{})),
		"leave":        reply(b.Leave(ctx, LeaveRequest{})),
		"invite":       reply(b.Invite(ctx, InviteRequest{})),
		"invites":      reply(b.Invites(ctx, "")),
		"members":      reply(b.Members(ctx, "")),
		"pending":      reply(b.Pending(ctx, "")),
		"approve":      reply(b.Approve(ctx, MemberRequest{})),
		"revoke":       reply(b.Revoke(ctx, RevokeRequest{})),
		"admins":       reply(b.Admins(ctx, "")),
		"admin_add":    reply(b.AdminAdd(ctx, AdminRequest{})),
		"admin_remove": reply(b.AdminRemove(ctx, AdminRemoveRequest{})),
		"device_add":   reply(b.DeviceAdd(ctx, DeviceRequest{})),
		"ping":         reply(b.Ping(ctx, PingRequest{})),
		"route":        reply(b.Route(ctx, MemberRequest{})),
		"map":          reply(b.Map(ctx, "")),
		"doctor":       reply(b.Doctor(ctx, "")),
		"policy":       reply(b.Policy(ctx, "")),
		"policy_set":   reply(b.SetPolicy(ctx, PolicyRequest{})),
		"network":      Network{}, // nothing known: null, [] and "", never a missing field
		"error":        Errorf(CodeNameTaken, "the name home is taken").Hintf("choose another"),
	} {
		got := toJSON(t, v) + "\n"
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the JSON changed:\n%s", file, got)
		}
	}
}

// Every field, code and call stands in the specification: spec/60-api.md#stability.
func TestSpecIsComplete(t *testing.T) {
	b, err := os.ReadFile("../../spec/60-api.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := string(b)
	want := map[string]string{}
	for _, v := range []any{Status{}, CreateRequest{}, CreateReply{}, JoinRequest{}, streamLine{}, InviteRequest{}, InviteReply{}, Invites{},
		NetworkRequest{}, LeaveRequest{}, LeaveReply{}, Members{}, PendingList{}, RevokeRequest{}, RevokeReply{}, MemberRequest{}, AdminRequest{},
		AdminRemoveRequest{}, Admins{}, RenameRequest{}, DeviceRequest{}, DeviceReply{}, PingRequest{}, PingReply{}, RouteReply{}, MapReply{},
		Doctor{}, Policy{}, PolicyRequest{}, Error{}} {
		fields(reflect.TypeOf(v), want)
	}
	for c := range codes {
		want[string(c)] = "error code"
	}
	for _, rt := range routes {
		want[rt.method+" "+rt.path] = "call"
	}
	for name, where := range want {
		if !strings.Contains(spec, "`"+name+"`") {
			t.Errorf("spec/60-api.md lacks `%s` (%s)", name, where)
		}
	}
}

func fields(typ reflect.Type, out map[string]string) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice:
		fields(typ.Elem(), out)
	case reflect.Struct:
		if reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
			return
		}
		for f := range typ.Fields() {
			if tag := f.Tag.Get("json"); tag != "" {
				name, _, _ := strings.Cut(tag, ",")
				out[name] = typ.Name()
				fields(f.Type, out)
			}
		}
	}
}
