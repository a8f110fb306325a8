package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves b on a socket in a new directory until the test ends, and proves that Run leaves nothing behind.
func start(t *testing.T, b Backend, change func(*Server)) (*Client, string) {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(b, DefaultGroup, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if change != nil {
		change(s)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }() // ends with stop
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		if _, err := os.Lstat(SocketPath(dir)); err == nil {
			t.Error("the socket is still there after Run")
		}
	})
	return Dial(SocketPath(dir)), dir
}

// as makes every caller look like the user uid.
func as(uid string) func(*Server) {
	return func(s *Server) {
		s.identify = func(net.Conn) caller { return caller{uid: uid, known: uid != ""} }
	}
}

// allCalls makes every call of the API once.
func allCalls(ctx context.Context, b Backend) map[string]error {
	out := map[string]error{}
	call := func(name string, f func() (any, error)) {
		_, err := f()
		out[name] = err
	}
	call("status", func() (any, error) { return b.Status(ctx) })
	call("members", func() (any, error) { return b.Members(ctx, "home") })
	call("pending", func() (any, error) { return b.Pending(ctx, "home") })
	call("invites", func() (any, error) { return b.Invites(ctx, "home") })
	call("admins", func() (any, error) { return b.Admins(ctx, "home") })
	call("ping", func() (any, error) { return b.Ping(ctx, PingRequest{Network: "home", Member: "bob", Timeout: 500}) })
	call("route", func() (any, error) { return b.Route(ctx, MemberRequest{Network: "home", Member: "bob"}) })
	call("map", func() (any, error) { return b.Map(ctx, "home") })
	call("doctor", func() (any, error) { return b.Doctor(ctx, "home") })
	call("policy", func() (any, error) { return b.Policy(ctx, "home") })
	call("create", func() (any, error) { return b.Create(ctx, CreateRequest{Name: "home", NodeName: "alice"}) })
	call("join", func() (any, error) { return b.Join(ctx, JoinRequest{Code: "c", Name: "bob"}, nil) })
	call("up", func() (any, error) { return b.Up(ctx, NetworkRequest{}) })
	call("down", func() (any, error) { return b.Down(ctx, NetworkRequest{Network: "home"}) })
	call("leave", func() (any, error) { return b.Leave(ctx, LeaveRequest{Force: true}) })
	call("rename", func() (any, error) { return b.Rename(ctx, RenameRequest{Name: "bob"}) })
	call("invite", func() (any, error) {
		return b.Invite(ctx, InviteRequest{Uses: 2, Expires: 60, Groups: List[string]{"staff"}})
	})
	call("approve", func() (any, error) { return b.Approve(ctx, MemberRequest{Member: "dave"}) })
	call("revoke", func() (any, error) {
		return b.Revoke(ctx, RevokeRequest{Member: "bob", Compromised: true, Reason: "lost"})
	})
	call("admin/add", func() (any, error) {
		return b.AdminAdd(ctx, AdminRequest{Member: "bob", Rights: List[string]{"invite"}})
	})
	call("admin/remove", func() (any, error) { return b.AdminRemove(ctx, AdminRemoveRequest{Member: "bob"}) })
	call("device/add", func() (any, error) { return b.DeviceAdd(ctx, DeviceRequest{Name: "phone"}) })
	call("policy set", func() (any, error) { return b.SetPolicy(ctx, PolicyRequest{Setting: "broadcast", Value: "off"}) })
	call("stop", func() (any, error) { return nil, b.Stop(ctx) })
	return out
}

// Every call reaches the backend as it was made: spec/60-api.md#calls.
func TestCallsArrive(t *testing.T) {
	direct, through := &fakeBackend{}, &fakeBackend{}
	allCalls(t.Context(), direct)
	c, _ := start(t, through, nil)
	for name, err := range allCalls(t.Context(), c) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, want := through.taken(), direct.taken(); !slices.Equal(got, want) {
		t.Errorf("over the socket:\n%s\ndirectly:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Replies come back as the backend gave them: spec/60-api.md#values.
func TestRepliesSurvive(t *testing.T) {
	c, _ := start(t, &fakeBackend{}, nil)
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := toJSON(t, got), toJSON(t, sampleStatus()); a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
	if loss, known := got.Networks[0].Peers[0].Loss.Value(); !known || math.Abs(loss-0.0125) > 0.001 {
		t.Errorf("loss is %v, known %v", loss, known)
	}
	if _, known := got.Networks[0].Peers[1].Loss.Value(); known {
		t.Error("a loss that is not known came as known")
	}
	if rtt := got.Networks[0].Peers[0].RTT.Duration(); rtt != 1500*time.Microsecond {
		t.Errorf("rtt is %v", rtt)
	}
}

// Who may do what: spec/60-api.md#access. A stranger reads; root, the daemon's user and the group change.
func TestAccess(t *testing.T) {
	if !hasPeerCreds {
		t.Skip("this system does not tell who calls: the socket's mode decides")
	}
	group, uid := groupMember(t)
	reading := []string{"status", "members", "pending", "invites", "admins", "ping", "route", "map", "doctor", "policy"}
	for _, test := range []struct {
		name, uid, group string
		may              bool
	}{
		{"root", "0", "", true},
		{"daemon's own user", itoa(os.Geteuid()), "", true},
		{"member of the group", uid, group, true},
		{"member of another group", uid, "no-such-group-here", false},
		{"stranger when no group is set", "54321", "", false},
		{"stranger", "54321", group, false},
		{"not known", "", group, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.uid == itoa(os.Geteuid()) && !test.may {
				t.Skip("that is the user of this test")
			}
			b := &fakeBackend{}
			c, _ := start(t, b, func(s *Server) { as(test.uid)(s); s.group = test.group })
			for name, err := range allCalls(t.Context(), c) {
				if want := test.may || slices.Contains(reading, name); want != (err == nil) {
					t.Errorf("%s: error %v, allowed should be %v", name, err, want)
				}
				if err != nil && CodeOf(err) != CodeDenied {
					t.Errorf("%s: code %q", name, CodeOf(err))
				}
			}
			if !test.may && len(b.taken()) != len(reading) {
				t.Error("a refused call reached the backend")
			}
		})
	}
}

// Every route that is not a GET changes something, and answers with secrets are never a GET's: spec/60-api.md#access.
func TestRoutes(t *testing.T) {
	for _, rt := range routes {
		if rt.change != (rt.method == http.MethodPost) {
			t.Errorf("%s %s: change is %v", rt.method, rt.path, rt.change)
		}
	}
}

// A caller may hold 32 connections; one more is closed at once: spec/60-api.md#limits.
func TestManyConnections(t *testing.T) {
	_, dir := start(t, &fakeBackend{}, as("54321"))
	var open []net.Conn
	for range maxConns {
		open = append(open, dial(t, dir))
	}
	ask(t, open[len(open)-1]) // the last of them is served
	extra := dial(t, dir)
	if _, err := extra.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one connection too many: %v, want EOF", err)
	}
	open[0].Close()
	for { // its place comes back as soon as the server has seen the end
		c := dial(t, dir)
		if _, err := io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n"); err == nil {
			if b, err := io.ReadAll(c); err == nil && len(b) > 0 {
				break
			}
		}
	}
}

func dial(t *testing.T, dir string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: w\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatalf("no reply: %v", err)
	}
}

// Progress is told as it happens, then the network: spec/60-api.md#join.
func TestJoinStreams(t *testing.T) {
	b := &fakeBackend{steps: []Progress{{StageContact, "looking"}, {StagePending, "waiting"}}, block: make(chan struct{})}
	c, _ := start(t, b, nil)
	var got []string
	n, err := c.Join(t.Context(), JoinRequest{Code: " c\n", Name: "bob"}, func(p Progress) {
		if got = append(got, p.Stage); p.Stage == StagePending { // it arrives while the call still runs
			close(b.block)
		}
	})
	if err != nil || n.Name != "home" {
		t.Fatalf("join: %v, %v", n.Name, err)
	}
	if want := []string{StageContact, StagePending}; !slices.Equal(got, want) {
		t.Errorf("stages %v, want %v", got, want)
	}
	if calls := b.taken(); !strings.Contains(calls[0], `"code":"c"`) {
		t.Errorf("the code was not trimmed: %s", calls[0])
	}
}

func TestJoinFails(t *testing.T) {
	for _, steps := range [][]Progress{nil, {{StageContact, "looking"}}} { // before and after the stream has begun
		b := &fakeBackend{steps: steps, err: Errorf(CodeCodeUsed, "this code was used already").Hintf("ask for a new one")}
		c, _ := start(t, b, nil)
		_, err := c.Join(t.Context(), JoinRequest{Code: "c", Name: "bob"}, nil)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeCodeUsed || e.Hint != "ask for a new one" {
			t.Errorf("after %d steps: %#v", len(steps), err)
		}
	}
}

// Who hangs up ends the call; a server that stops ends it too: spec/60-api.md#join.
func TestJoinEnds(t *testing.T) {
	t.Run("caller", func(t *testing.T) {
		b := &fakeBackend{steps: []Progress{{StageContact, "looking"}}, block: make(chan struct{})}
		c, _ := start(t, b, nil) // its cleanup waits for the call
		ctx, cancel := context.WithCancel(t.Context())
		_, err := c.Join(ctx, JoinRequest{Code: "c", Name: "bob"}, func(Progress) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("server", func(t *testing.T) {
		dir := t.TempDir()
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		b := &fakeBackend{steps: []Progress{{StageContact, "looking"}}, block: make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- NewServer(b, "", nil).Run(ctx, l) }()
		_, err = Dial(SocketPath(dir)).Join(t.Context(), JoinRequest{Code: "c", Name: "bob"}, func(Progress) { stop() })
		if CodeOf(err) != CodeStopping {
			t.Errorf("got %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Requests are refused when malformed, before they reach the backend: spec/60-api.md#requests.
func TestRequests(t *testing.T) {
	b := &fakeBackend{}
	c, _ := start(t, b, nil)
	for _, test := range []struct{ call, body, want string }{
		{"create", `{"name":"home","node_name":"a","colour":"red"}`, "unknown field"},
		{"create", `{"name":"home","node_name":"a"}{}`, "more than one value"},
		{"create", `{"name":"Home","node_name":"a"}`, "has the character"},
		{"create", `{"name":"","node_name":"a"}`, "empty"},
		{"create", `{"name":"home","node_name":"-a"}`, "begins or ends"},
		{"create", `{"name":"home","node_name":"a","pool":"16.0.0.0/4"}`, "too large"},
		{"create", `{"name":"home","node_name":"a","pool":"2001:db8::/32"}`, "not IPv4"},
		{"create", `{"name":"home","node_name":"a","pool":"10.1.2.3/16"}`, "bits behind"},
		{"create", `[`, "cannot be read"},
		{"create", `{"name":"` + strings.Repeat("a", 70<<10) + `"}`, "more than 65536 bytes"},
		{"join", `{"code":"","name":"a"}`, "empty"},
		{"join", `{"code":"` + strings.Repeat("a", 600) + `","name":"a"}`, "not a code"},
		{"invite", `{"uses":0,"expires_s":60}`, "0 uses"},
		{"invite", `{"uses":1,"expires_s":-1}`, "expires"},
		{"invite", `{"uses":1,"expires_s":1,"groups":["A"]}`, "group"},
		{"invite", `{"uses":1,"expires_s":1,"groups":["a","b","c","d","e","f","g","h","i"]}`, "9 groups"},
		{"revoke", `{}`, "no member"},
		{"revoke", `{"member":"a","reason":"` + strings.Repeat("a", 201) + `"}`, "201 bytes"},
		{"revoke", `{"member":"a","reason":"\u001b[2J"}`, "control"},
		{"admin/add", `{"member":"a","rights":[]}`, "no right"},
		{"admin/add", `{"member":"a","rights":["fly"]}`, `no right "fly"`},
		{"policy", `{"value":"on"}`, "no setting"},
		{"policy", `{"setting":"relays","value":"` + strings.Repeat("a", 1001) + `"}`, "1001 bytes"},
		{"policy", `{"setting":"relays","value":false}`, "cannot be read"},
		{"no/such/call", `{}`, "no call POST /v1/no/such/call"},
	} {
		resp, err := c.http.Post("http://warren/v1/"+test.call, "application/json", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		var e Error
		err = json.NewDecoder(resp.Body).Decode(&e)
		resp.Body.Close()
		if err != nil || resp.StatusCode < 400 || resp.StatusCode > 499 || !strings.Contains(e.Message, test.want) {
			t.Errorf("%s %.60s: %d %+v, want %q", test.call, test.body, resp.StatusCode, e, test.want)
		}
	}
	if _, err := c.Ping(t.Context(), PingRequest{Member: "bob", Timeout: 10_001}); CodeOf(err) != CodeBadRequest {
		t.Errorf("a long ping timeout: %v", err)
	}
	if _, err := c.Route(t.Context(), MemberRequest{}); CodeOf(err) != CodeBadRequest {
		t.Errorf("a route to nobody: %v", err)
	}
	if calls := b.taken(); len(calls) > 0 {
		t.Errorf("reached the backend: %v", calls)
	}
}

// An error keeps its code, message and hint, and sets the HTTP status: spec/60-api.md#errors.
func TestErrors(t *testing.T) {
	for code, status := range codes {
		want := Errorf(code, "what happened").Hintf("what next")
		c, dir := start(t, &fakeBackend{err: want}, nil)
		_, err := c.Status(t.Context())
		if got, ok := errors.AsType[*Error](err); !ok || *got != *want {
			t.Errorf("%s came as %#v", code, err)
		}
		conn := dial(t, dir)
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: w\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s: status %v, %v", code, resp.StatusCode, err)
		}
		resp.Body.Close()
	}
	c, _ := start(t, &fakeBackend{err: errors.New("disk on fire")}, nil)
	if _, err := c.Status(t.Context()); CodeOf(err) != CodeInternal || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("an untyped error came as %v", err)
	}
}

// The socket: spec/60-api.md#socket.
func TestListen(t *testing.T) {
	t.Run("mode", func(t *testing.T) {
		_, dir := start(t, &fakeBackend{}, nil)
		fi, err := os.Stat(SocketPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o600)
		if hasPeerCreds {
			want = 0o666
		}
		if fi.Mode().Perm() != want {
			t.Errorf("mode %v, want %v", fi.Mode().Perm(), want)
		}
	})
	t.Run("stale socket", func(t *testing.T) {
		dir := t.TempDir()
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(dir), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false) // as after kill -9
		old.Close()
		if _, err := Dial(SocketPath(dir)).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("with a stale socket: %v", err)
		}
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	t.Run("a file in the way is kept", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(SocketPath(dir), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(dir); err == nil {
			t.Error("it was replaced")
		}
		if b, _ := os.ReadFile(SocketPath(dir)); string(b) != "mine" {
			t.Error("it was destroyed")
		}
	})
	t.Run("long path", func(t *testing.T) {
		if _, err := Listen("/" + strings.Repeat("x", 120)); CodeOf(err) != CodeBadRequest {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no daemon", func(t *testing.T) {
		if _, err := Dial(SocketPath(t.TempDir())).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("got %v", err)
		}
	})
}

// Run says why when the listener breaks.
func TestRunListenerBroken(t *testing.T) {
	l, err := Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewServer(&fakeBackend{}, "", nil).Run(t.Context(), l); err == nil {
		t.Error("no error")
	}
}

// What is on the socket that is not our daemon is told as such.
func TestOtherServer(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	_, err = Dial(SocketPath(dir)).Status(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Hint, "another program") {
		t.Errorf("got %v", err)
	}
}

// What a newer daemon adds does not disturb an older program: spec/60-api.md#stability.
func TestUnknownFieldsIgnored(t *testing.T) {
	l, err := net.Listen("unix", SocketPath(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"version":"9","colour":"red","networks":[{"name":"home","smell":{}}]}`)
	})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	st, err := Dial(l.Addr().String()).Status(t.Context())
	if err != nil || st.Version != "9" || st.Networks[0].Name != "home" {
		t.Errorf("got %+v, %v", st, err)
	}
}

// spec/60-api.md#names
func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"Alices-MacBook.local": "alices-macbook", "desktop_7": "desktop-7", "été": "t", "--": "", "": "", "a--b": "a-b",
		strings.Repeat("x", 80): strings.Repeat("x", 63),
	} {
		if got := CleanName(in); got != want {
			t.Errorf("CleanName(%q) = %q, want %q", in, got, want)
		} else if got != "" && CheckName("node", got) != nil {
			t.Errorf("CleanName(%q) = %q, which is refused", in, got)
		}
	}
}

func TestPools(t *testing.T) {
	for _, good := range []string{"10.77.0.0/16", "100.64.0.0/10", "192.168.7.0/24"} {
		if err := CheckPool(netip.MustParsePrefix(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16", "10.0.0.0/30"} {
		if err := CheckPool(netip.MustParsePrefix(bad)); err == nil {
			t.Errorf("%s was let through", bad)
		}
	}
}

// A share is null, or a number from 0 to 1: spec/60-api.md#values.
func TestShare(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 1: "1", 0.5: "0.5", 1.0 / 3: "0.333", -1: "0", 7: "1", math.NaN(): "0", math.Inf(1): "1"} {
		if got := toJSON(t, ShareOf(in)); got != want {
			t.Errorf("ShareOf(%v) is %s, want %s", in, got, want)
		}
	}
	if got := toJSON(t, Share{}); got != "null" {
		t.Errorf("an unknown share is %s", got)
	}
	var s Share
	if err := json.Unmarshal([]byte("0"), &s); err != nil || s != ShareOf(0) {
		t.Errorf("0 came as %v, %v", s, err)
	}
	if err := json.Unmarshal([]byte("null"), &s); err != nil || s != (Share{}) {
		t.Errorf("null came as %v, %v", s, err)
	}
}

func FuzzRequest(f *testing.F) {
	for i := range routes {
		f.Add(uint8(i), []byte(`{"name":"home","node_name":"a","member":"bob","code":"c","uses":1,"expires_s":60,"rights":["invite"],"reason":"r"}`), "member=bob&timeout_ms=5")
		f.Add(uint8(i), []byte(`{}`), "")
	}
	h := NewServer(&fakeBackend{}, "", nil).handler()
	root := context.WithValue(context.Background(), callerKey{}, caller{uid: "0", known: true})
	f.Fuzz(func(t *testing.T, which uint8, body []byte, query string) {
		rt := routes[int(which)%len(routes)]
		r, err := http.NewRequestWithContext(root, rt.method, "http://warren"+rt.path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, r)
		if !json.Valid(w.body.Bytes()) {
			t.Errorf("reply is not JSON: %q", w.body.Bytes())
		}
		if w.status >= 500 {
			t.Errorf("status %d: %s", w.status, w.body.Bytes())
		}
	})
}

// recorder is an http.ResponseWriter that keeps the reply.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(s int)           { w.status = s }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

func toJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatalf("%v: %v", reflect.TypeOf(v), err)
	}
	return string(b)
}
