package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	maxBody      = 64 << 10         // of a request, bytes
	readTimeout  = 5 * time.Second  // for a request to be there
	writeTimeout = 10 * time.Second // for the caller to take one piece of a reply
	stopTimeout  = 2 * time.Second  // for replies under way when the server stops
	callerHint   = "run it with sudo, or join the group %s: sudo usermod -aG %s \"$USER\", then log in again"
)

// Server guards a Backend and serves it.
type Server struct {
	backend  Backend
	group    string
	log      *slog.Logger
	identify func(net.Conn) caller // replaced in tests
}

// NewServer serves b. Members of the unix group may make changing calls; "" means no group. log may be nil.
func NewServer(b Backend, group string, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{backend: b, group: group, log: log.With("part", "api"), identify: identify}
}

// Run serves l until ctx ends, and closes it. Calls under way see their context end and have 2 s to reply. Run returns
// nil after ctx, the error of the listener before.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler(),
		ConnContext:       connContext,
		BaseContext:       func(net.Listener) context.Context { return calls },
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	var conns sync.WaitGroup // net/http does not wait for connections that Close has cut; Run does
	srv.ConnState = func(_ net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew: // called before Serve accepts the next
			conns.Add(1)
		case http.StateClosed: // the last act of the connection's goroutine
			conns.Done()
		}
	}

	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx, or with the deferred cancel when the listener fails
		<-calls.Done()
		stop, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer done()
		if srv.Shutdown(stop) != nil {
			srv.Close() //nolint:errcheck // the sockets go one way or the other
		}
	})
	err := srv.Serve(&listener{Listener: l, identify: s.identify, conns: map[string]int{}})
	cancel()
	wg.Wait()
	conns.Wait()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the local socket: %w", err)
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, rt) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, Errorf(CodeBadRequest, "no call %s %s", r.Method, r.URL.Path).
			Hintf("is the daemon older than this command? restart it"))
	})
	return mux
}

// serve runs one call: who, what, do, reply.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt route) {
	who := callerOf(r.Context())
	if rt.change && !mayChange(who, s.group) {
		e := Errorf(CodeDenied, "this needs root")
		if s.group != "" {
			e = e.Hintf(callerHint, s.group, s.group)
		}
		s.fail(w, r, e)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	rc := http.NewResponseController(w)
	clearDeadline := func() { rc.SetReadDeadline(time.Time{}) } //nolint:errcheck // a closed connection ends the context anyway
	if rt.stream != nil {
		s.serveStream(w, r, rt, clearDeadline)
		return
	}
	reply, err := rt.call(r, s.backend, clearDeadline)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if rt.change {
		s.log.Info("changed by a local user", "call", rt.path, "uid", who.uid)
	}
	s.reply(w, http.StatusOK, reply)
}

// streamLine is one line of a streamed reply: exactly one field is set.
type streamLine struct {
	Progress *Progress `json:"progress,omitempty"`
	Network  *Network  `json:"network,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// serveStream runs a call that reports progress. The call has its own goroutine, so that a caller who reads slowly holds
// up nobody; progress that finds no room is dropped.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, rt route, ready func()) {
	steps := make(chan Progress, 16)
	progress := func(p Progress) {
		select {
		case steps <- p:
		default:
		}
	}
	var (
		network Network
		err     error
		wg      sync.WaitGroup
	)
	done := make(chan struct{})
	wg.Go(func() { // ends when the call does, which is soon after the request's context
		defer close(done)
		network, err = rt.stream(r, s.backend, ready, progress)
	})
	defer wg.Wait()

	started := false
	send := func(line streamLine) {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		rc := http.NewResponseController(w)
		rc.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:errcheck // a caller that is gone ends the context
		json.NewEncoder(w).Encode(line)                   //nolint:errcheck // as above
		rc.Flush()                                        //nolint:errcheck // as above
	}
	for running := true; running; {
		select {
		case p := <-steps:
			send(streamLine{Progress: &p})
		case <-done:
			running = false
		}
	}
	for len(steps) > 0 {
		p := <-steps
		send(streamLine{Progress: &p})
	}
	switch {
	case err != nil && !started: // an ordinary error reply, with its status
		s.fail(w, r, err)
	case err != nil:
		send(streamLine{Error: s.toError(r, err)})
	default:
		s.log.Info("changed by a local user", "call", rt.path, "uid", callerOf(r.Context()).uid)
		send(streamLine{Network: &network})
	}
}

// toError makes an error fit for the caller and logs what only the daemon's owner can mend.
func (s *Server) toError(r *http.Request, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return Errorf(CodeStopping, "the daemon is stopping")
	}
	s.log.Warn("call failed", "call", r.URL.Path, "err", err)
	return Errorf(CodeInternal, "%s", err.Error()).Hintf("the daemon's log may say more")
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := s.toError(r, err)
	s.reply(w, e.Code.HTTPStatus(), e)
}

func (s *Server) reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.log.Error("encode reply", "err", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":"the reply cannot be encoded","code":"internal","hint":""}`)
	}
	w.Header().Set("Content-Type", "application/json")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:errcheck // a dead connection fails below
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // the caller is gone then
}

// decode reads one JSON object into v, strictly: unknown fields and anything after it are errors. An empty body is {}.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if err == nil {
			err = errors.New("more than one value")
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Errorf(CodeBadRequest, "the request has more than %d bytes", tooLarge.Limit)
	}
	return Errorf(CodeBadRequest, "the request cannot be read: %v", err).
		Hintf("are command and daemon of the same version? restart the daemon after an update")
}
