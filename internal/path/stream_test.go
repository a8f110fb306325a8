package path

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

const tcp = "[100::1:2:3:4]:443"

func (l *lab) streams(addrs ...string) {
	var list []netip.AddrPort
	for _, a := range addrs {
		list = append(list, ap(a))
	}
	l.e.SetStreams(l.now, l.id, list)
	l.settle()
}

// A stream carries the traffic while UDP does not, is asked in every handshake, and gives way to the first answer by UDP, which is
// asked again each minute. spec/51-path.md#streams
func TestStreamUntilUDPAnswers(t *testing.T) {
	l := newLab(t, false)
	udp := l.link(public, 200*time.Millisecond)
	udp.down = true
	l.link(tcp, 20*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.streams(tcp)
	if got := l.e.Targets(l.now, l.id); !slices.Contains(got, way(tcp)) || !slices.Contains(got, way(public)) {
		t.Errorf("targets %v, want the stream and the address", got)
	}
	l.up(tcp)
	l.active(20 * time.Second)
	l.wantBest(tcp)
	if got := l.peer.Choice(); got.Direct != ap(tcp) || got.MTU != 1420 {
		t.Errorf("choice %+v, want the stream as a direct way for 1420 bytes", got)
	}
	before := udp.sent
	l.active(9 * time.Minute)
	if got := udp.sent - before; got < 8 || got > 10 {
		t.Errorf("%d pings in 9 minutes to an address that never answered, want one a minute", got)
	}
	udp.down = false
	l.active(61 * time.Second)
	l.wantBest(public)
	l.active(time.Minute)
	l.wantBest(public) // although it is slower
}

// While an address answers, a stream is not the path, however fast it is; when the address dies, it is at once.
// spec/51-path.md#streams
func TestStreamIsTheLastDirectWay(t *testing.T) {
	l := newLabWith(t, Config{Mode: ModeBalance}, false)
	udp := l.link(public, 20*time.Millisecond)
	l.link(tcp, 20*time.Millisecond)
	l.link(viaA, 20*time.Millisecond)
	l.candidates(SourceInfo, public)
	l.up(public)
	l.active(5 * time.Second)
	l.streams(tcp)
	l.active(time.Minute)
	l.wantBest(public)
	if got := l.peer.Choice().Spread; got != nil {
		t.Errorf("flows are spread over %v", got)
	}
	l.e.Received(l.now, l.id, way(tcp)) // the peer uses it
	l.settle()
	l.active(time.Minute)
	l.wantBest(public)
	l.routes(viaA)
	udp.down = true
	l.active(5 * time.Second)
	l.wantBest(tcp)
	l.e.StreamDown(l.now, ap(tcp))
	l.settle()
	l.wantBest(viaA)
	if s := l.e.Status(l.id); slices.ContainsFunc(s.Candidates, func(c CandidateStatus) bool { return c.Way == way(tcp) }) {
		t.Error("a stream that has ended is still a candidate")
	}
}

// Nobody can make us try a stream, and nobody learns of one. spec/51-path.md#streams, spec/72-streams.md#addresses
func TestStreamsAreNobodyElses(t *testing.T) {
	l := newLab(t, false)
	k := l.link(tcp, 20*time.Millisecond)
	for src := range numSources {
		l.candidates(src, tcp)
	}
	l.up("")
	l.e.SetOwn(l.now, wire.NAT{}, wire.NAT{}, []wire.Candidate{{Kind: wire.CandidateExternal, Addr: ap(public)}})
	l.e.HandleCandidates(l.now, l.id, wire.Candidates{Round: 1, List: []wire.Candidate{{Kind: wire.CandidateExternal, Addr: ap(tcp)}}})
	l.active(10 * time.Second)
	if k.sent > 0 {
		t.Errorf("%d pings to a stream that a peer named", k.sent)
	}
	l.streams(tcp)
	l.active(10 * time.Second)
	l.wantBest(tcp)
	l.e.HandlePing(l.now, l.id, way(tcp), wire.Ping{ID: 7})
	l.settle()
	pongs := effectsOf[SendPong](l)
	if len(pongs) != 1 || pongs[0].To != way(tcp) || pongs[0].Pong.Observed.IsValid() {
		t.Errorf("pongs %+v, want one that does not say the stream", pongs)
	}
	if got := effectsOf[Proven](l); len(got) > 0 {
		t.Errorf("to be saved: %v", got)
	}
	if got := effectsOf[Observed](l); len(got) > 0 {
		t.Errorf("observed: %v", got)
	}
	l.e.StreamDown(l.now, ap(tcp))
	l.e.SetStreams(l.now, key.NodeID{9}, nil)
	l.settle()
	l.wantBest("")
}
