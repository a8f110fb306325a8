package stream

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// page is what the plain web server shows.
const page = "<!DOCTYPE html>\n<html>\n<head><title>It works!</title></head>\n<body><h1>It works!</h1></body>\n</html>\n"

// plainWeb is a web server as it is when nobody has put anything there yet.
func plainWeb() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(page))
	})
	return mux
}

// ServeHTTP opens a stream for a request for a WebSocket whose path ends with a good token, and leaves every other to the web
// server (spec/72-streams.md#strangers).
func (v *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, token := v.admits(r)
	g := guestOf(r.Context().Value(guestKey{}))
	if key == nil || g == nil {
		v.web.ServeHTTP(w, r)
		return
	}
	v.wg.Add(1) // the web server counts the connection until it is taken over
	defer v.wg.Done()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // no cookies, so no Origin to check
	if err != nil {
		return
	}
	conn := webConn{websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws}
	kind := "wss"
	if v.cfg == nil {
		kind = "ws"
	}
	v.welcome(carrier{conn, g}, g, kind, key.webProof(token))
}

// admits returns the key that r shows to know, and the token. nil: none.
func (v *server) admits(r *http.Request) (*Key, [tokenSize]byte) {
	token, ok := parseToken(r.URL.Path)
	if !ok || r.Method != http.MethodGet || r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return nil, token
	}
	now := time.Now()
	var found *Key
	for _, k := range *v.set.keys.Load() {
		if k.opens(token, now) {
			found = &k
		}
	}
	if found == nil || !v.set.used.use(token) {
		return nil, token
	}
	return found, token
}
