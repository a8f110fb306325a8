package portmap

import (
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// router is a router on an address of the loopback network, with what it has mapped.
type router struct {
	t       *testing.T
	addr    netip.Addr
	control *net.UDPConn
	ssdp    *net.UDPConn
	web     *http.Server
	webAt   netip.AddrPort
	run     sync.WaitGroup

	mu sync.Mutex
	routerSettings
	started time.Time
	mapped  map[uint16]held // by the port outside
	nonces  map[uint16][12]byte
	most    int // mappings at once
	grants  int // requests granted, renewals too
	asked   map[string]int
}

// routerSettings is what a router speaks and how it behaves.
type routerSettings struct {
	pcp, pmp, upnp bool
	external       netip.Addr
	lifetime       time.Duration   // granted at most; 0: what is asked for
	taken          map[uint16]bool // ports outside that others have
	permanent      bool            // UPnP: grants for ever only
	garble         func(answer []byte) [][]byte
	page           string // UPnP: the description instead of the right one
	mapsNothing    bool   // says yes to the questions and no to the mapping
	redirect       string
}

type held struct {
	client netip.AddrPort
	until  time.Time // zero: for ever
}

var routers atomic.Uint32

// newRouter starts a router.
func newRouter(t *testing.T, s routerSettings) *router {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs the whole of 127.0.0.0/8")
	}
	n := routers.Add(1)
	if !s.external.IsValid() {
		s.external = netip.MustParseAddr("198.51.100.7")
	}
	r := &router{t: t, addr: netip.AddrFrom4([4]byte{127, byte(64 + os.Getpid()%128), byte(os.Getpid() / 128), byte(n)}), routerSettings: s,
		started: time.Now().Add(-time.Hour), mapped: map[uint16]held{}, nonces: map[uint16][12]byte{}, asked: map[string]int{}}
	listen := func(port uint16) *net.UDPConn {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.addr, port)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	r.control, r.ssdp = listen(controlPort), listen(ssdpPort)
	l, err := net.Listen("tcp4", netip.AddrPortFrom(r.addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	r.webAt = l.Addr().(*net.TCPAddr).AddrPort()
	r.web = &http.Server{Handler: http.HandlerFunc(r.serveWeb)}
	r.run.Go(func() { r.serve(r.control, r.answerControl) }) // ends with its socket
	r.run.Go(func() { r.serve(r.ssdp, r.answerSearch) })     // ends with its socket
	r.run.Go(func() { r.web.Serve(l) })                      //nolint:errcheck // ends when it is closed
	t.Cleanup(func() {
		r.control.Close()
		r.ssdp.Close()
		r.web.Close()
		r.run.Wait()
	})
	return r
}

// locked calls f while the router does nothing.
func (r *router) locked(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// holds lists what is mapped: port outside -> our address and port.
func (r *router) holds() map[uint16]netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[uint16]netip.AddrPort{}
	for port, h := range r.mapped {
		if h.until.IsZero() || time.Now().Before(h.until) {
			out[port] = h.client
		}
	}
	return out
}

func (r *router) serve(c *net.UDPConn, answer func(b []byte, from netip.AddrPort) []byte) {
	b := make([]byte, 2000)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		r.locked(func() {
			a := answer(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
			if a == nil {
				return
			}
			answers := [][]byte{a}
			if r.garble != nil {
				answers = r.garble(a)
			}
			for _, a := range answers {
				c.WriteToUDPAddrPort(a, from) //nolint:errcheck // what does not arrive shows
			}
		})
	}
}

func (r *router) epoch() uint32 { return uint32(time.Since(r.started) / time.Second) }

// reboot makes the router forget everything and announce that.
func (r *router) reboot() {
	r.locked(func() {
		r.started, r.mapped, r.nonces = time.Now(), map[uint16]held{}, map[uint16][12]byte{}
		r.control.WriteToUDPAddrPort(r.announcement(), announced) //nolint:errcheck // what does not arrive shows
	})
}

func (r *router) announcement() []byte {
	if r.pcp {
		return append(binary.BigEndian.AppendUint32([]byte{2, 0x80, 0, 0, 0, 0, 0, 0}, r.epoch()), make([]byte, 12)...)
	}
	a := r.external.As4()
	return append(binary.BigEndian.AppendUint32([]byte{0, 0x80, 0, 0}, r.epoch()), a[:]...)
}

// grant maps a port, the wanted one if it is free; 0 lifetime removes.
func (r *router) grant(client netip.AddrPort, want uint16, lifetime time.Duration) (port uint16, granted time.Duration) {
	for p, h := range r.mapped {
		if h.client == client {
			want = p
			if lifetime == 0 {
				delete(r.mapped, p)
				return 0, 0
			}
		}
	}
	if lifetime == 0 {
		return 0, 0
	}
	for r.taken[want] {
		want++
	}
	if r.lifetime > 0 {
		lifetime = min(lifetime, r.lifetime)
	}
	r.mapped[want] = held{client, time.Now().Add(lifetime)}
	r.grants++
	r.most = max(r.most, len(r.mapped))
	return want, lifetime
}

func (r *router) answerControl(b []byte, from netip.AddrPort) []byte {
	if len(b) < 2 {
		return nil
	}
	switch {
	case b[0] == 2:
		r.asked[PCP]++
		if r.pcp {
			return r.answerPCP(b, from)
		}
		if r.pmp {
			return append([]byte{0, 0x80, 0, 1}, 0, 0, 0, 0) // another version
		}
	case b[0] == 0:
		r.asked[NATPMP]++
		if r.pmp {
			return r.answerPMP(b, from)
		}
	}
	return nil
}

func (r *router) answerPCP(b []byte, from netip.AddrPort) []byte {
	if len(b) < 24 || netip.AddrFrom16([16]byte(b[8:24])).Unmap() != from.Addr() {
		r.t.Errorf("PCP request %x from %s", b, from)
		return nil
	}
	head := func(code byte, lifetime uint32) []byte {
		out := []byte{2, b[1] | 0x80, 0, code}
		out = binary.BigEndian.AppendUint32(out, lifetime)
		out = binary.BigEndian.AppendUint32(out, r.epoch())
		return append(out, make([]byte, 12)...)
	}
	if b[1] == 0 {
		return head(0, 0)
	}
	if b[1] != 1 || len(b) != 60 || b[36] != 17 {
		r.t.Errorf("PCP request %x", b)
		return nil
	}
	port, lifetime := binary.BigEndian.Uint16(b[40:]), binary.BigEndian.Uint32(b[4:])
	if r.mapsNothing {
		return append(head(2, 30), b[24:60]...)
	}
	if nonce, ok := r.nonces[port]; ok && nonce != [12]byte(b[24:36]) {
		return append(head(2, 30), b[24:60]...)
	}
	r.nonces[port] = [12]byte(b[24:36])
	outside, granted := r.grant(netip.AddrPortFrom(from.Addr(), port), binary.BigEndian.Uint16(b[42:]), time.Duration(lifetime)*time.Second)
	out := append(head(0, uint32(granted/time.Second)), b[24:42]...)
	out = binary.BigEndian.AppendUint16(out, outside)
	addr := r.external.As16()
	return append(out, addr[:]...)
}

func (r *router) answerPMP(b []byte, from netip.AddrPort) []byte {
	out := binary.BigEndian.AppendUint32([]byte{0, b[1] | 0x80, 0, 0}, r.epoch())
	switch {
	case b[1] == 0 && len(b) == 2:
		addr := r.external.As4()
		return append(out, addr[:]...)
	case b[1] == 1 && len(b) == 12:
		if r.mapsNothing {
			out[3] = 2
			return append(out, make([]byte, 8)...)
		}
		port := binary.BigEndian.Uint16(b[4:])
		outside, granted := r.grant(netip.AddrPortFrom(from.Addr(), port), binary.BigEndian.Uint16(b[6:]), time.Duration(binary.BigEndian.Uint32(b[8:]))*time.Second)
		out = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(out, port), outside)
		return binary.BigEndian.AppendUint32(out, uint32(granted/time.Second))
	}
	r.t.Errorf("NAT-PMP request %x", b)
	return nil
}

func (r *router) answerSearch(b []byte, _ netip.AddrPort) []byte {
	r.asked[UPnP]++
	if !r.upnp || !strings.HasPrefix(string(b), "M-SEARCH * HTTP/1.1\r\n") || !strings.Contains(string(b), "\r\nMAN: \"ssdp:discover\"\r\n") {
		return nil
	}
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nST: %s\r\nLOCATION: http://%s/root.xml\r\nUSN: uuid:1::%s\r\n\r\n", igd, r.webAt, igd)
}

const rootPage = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>` + igd + `</deviceType><deviceList><device>
<deviceList><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL></service>
</serviceList></device></deviceList></device></deviceList></device></root>`

func (r *router) serveWeb(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked["HTTP"]++
	switch {
	case r.redirect != "":
		http.Redirect(w, req, r.redirect, http.StatusFound)
	case req.URL.Path == "/root.xml" && r.page != "":
		io.WriteString(w, r.page) //nolint:errcheck // the reader may have gone
	case req.URL.Path == "/root.xml":
		io.WriteString(w, rootPage) //nolint:errcheck // the reader may have gone
	case req.URL.Path == "/control" && req.Method == http.MethodPost:
		r.serveControl(w, req)
	default:
		http.NotFound(w, req)
	}
}

func (r *router) serveControl(w http.ResponseWriter, req *http.Request) {
	var env struct {
		Body struct {
			Add struct {
				NewRemoteHost     string
				NewExternalPort   uint16
				NewProtocol       string
				NewInternalPort   uint16
				NewInternalClient string
				NewLeaseDuration  int
			} `xml:"AddPortMapping"`
			Delete struct{ NewExternalPort uint16 } `xml:"DeletePortMapping"`
		} `xml:"Body"`
	}
	if err := xml.NewDecoder(req.Body).Decode(&env); err != nil {
		r.t.Errorf("SOAP request: %v", err)
	}
	_, action, _ := strings.Cut(strings.Trim(req.Header.Get("SOAPAction"), `"`), "#")
	reply := func(status int, body string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>%s</s:Body></s:Envelope>`, body)
	}
	fault := func(code int) {
		reply(http.StatusInternalServerError, `<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>`+
			strconv.Itoa(code)+`</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault>`)
	}
	add := env.Body.Add
	switch {
	case action == "GetExternalIPAddress":
		reply(http.StatusOK, "<u:r><NewExternalIPAddress>"+r.external.String()+"</NewExternalIPAddress></u:r>")
	case action == "DeletePortMapping":
		delete(r.mapped, env.Body.Delete.NewExternalPort)
		reply(http.StatusOK, "<u:r></u:r>")
	case action != "AddPortMapping":
		fault(401)
	case r.mapsNothing:
		fault(606)
	case r.taken[add.NewExternalPort]:
		fault(718)
	case r.permanent && add.NewLeaseDuration != 0:
		fault(725)
	default:
		if add.NewProtocol != "UDP" || add.NewRemoteHost != "" {
			r.t.Errorf("AddPortMapping %+v", add)
		}
		client := netip.AddrPortFrom(netip.MustParseAddr(add.NewInternalClient), add.NewInternalPort)
		h := held{client: client}
		if !r.permanent {
			h.until = time.Now().Add(time.Duration(add.NewLeaseDuration) * time.Second)
		}
		r.mapped[add.NewExternalPort] = h
		r.grants++
		r.most = max(r.most, len(r.mapped))
		reply(http.StatusOK, "<u:r></u:r>")
	}
}
