package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/soap"
)

// upnp is the Internet Gateway Device of UPnP at one router. It belongs to one goroutine at a time.
type upnp struct {
	site
	local  netip.Addr       // ours, as the router sees it
	client *soap.SOAPClient // nil: not found yet
	kind   string           // of the service found: its URN
}

const (
	pageMost    = 64 << 10 // bytes of an answer over HTTP
	portTries   = 4        // of ports outside
	lowestPort  = 1024
	description = "Warren"
)

// connections are the services that map ports, the best first.
var connections = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

// Error codes of UPnP.
const (
	errConflict      = 718 // the port outside belongs to another host
	errPermanentOnly = 725 // mappings are for ever
)

func (u *upnp) name() string { return UPnP }

func (u *upnp) probe(ctx context.Context) error {
	local, err := localTo(u.gateway)
	if err != nil {
		return err
	}
	loc, err := search(ctx, u.site, local)
	if err != nil {
		return err
	}
	root, err := u.describe(ctx, loc)
	if err != nil {
		return fmt.Errorf("read the router's description: %w", err)
	}
	for _, kind := range connections {
		for _, s := range root.Device.FindService(kind) {
			if s.ControlURL.Ok && s.ControlURL.URL.Scheme == "http" {
				u.local, u.kind, u.client = local, kind, s.NewSOAPClient()
				u.client.HTTPClient = *u.http()
				return nil
			}
		}
	}
	return errors.New("the router maps no ports")
}

// http makes a client that reaches nobody but the router, whatever a URL says.
func (u *upnp) http() *http.Client {
	var dialer net.Dialer
	return &http.Client{
		Timeout:       u.requests,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: limited{&http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, "tcp4", net.JoinHostPort(u.gateway.String(), port))
		}}},
	}
}

// limited is a RoundTripper whose answers have an end.
type limited struct{ next http.RoundTripper }

// RoundTrip is next's.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := l.next.RoundTrip(r)
	if err == nil {
		a.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(a.Body, pageMost), a.Body}
	}
	return a, err
}

func (u *upnp) describe(ctx context.Context, loc *url.URL) (*goupnp.RootDevice, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, loc.String(), nil)
	if err != nil {
		return nil, err
	}
	a, err := u.http().Do(req)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", a.StatusCode)
	}
	root := &goupnp.RootDevice{}
	d := xml.NewDecoder(a.Body)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(root); err != nil {
		return nil, err
	}
	base := loc
	if b, err := url.Parse(root.URLBaseStr); err == nil && root.URLBaseStr != "" && b.Host != "" {
		base = b
	}
	root.SetURLBase(base)
	return root, nil
}

// mapRequest is the arguments of AddPortMapping, in the order that routers insist on.
type mapRequest struct {
	NewRemoteHost             string
	NewExternalPort           string
	NewProtocol               string
	NewInternalPort           string
	NewInternalClient         string
	NewEnabled                string
	NewPortMappingDescription string
	NewLeaseDuration          string
}

func (u *upnp) obtain(ctx context.Context, want netip.AddrPort) (grant, error) {
	addr, err := u.address(ctx)
	if err != nil {
		return grant{}, err
	}
	port := want.Port()
	if port == 0 {
		port = u.port
	}
	lifetime := u.lifetime
	for try := 0; ; try++ {
		err := u.call(ctx, "AddPortMapping", &mapRequest{"", number(port), "UDP", number(u.port), u.local.String(), "1", description, strconv.Itoa(int(lifetime / time.Second))}, nil)
		fault := (*soap.SOAPFaultError)(nil)
		switch {
		case err == nil:
			return grant{external: netip.AddrPortFrom(addr, port), lifetime: lifetime}, nil
		case try >= portTries || !errors.As(err, &fault):
			return grant{}, err
		case fault.Detail.UPnPError.Errorcode == errPermanentOnly && lifetime > 0:
			lifetime = 0
		case fault.Detail.UPnPError.Errorcode == errConflict:
			port = lowestPort + uint16(rand.IntN(1<<16-lowestPort))
		default:
			return grant{}, err
		}
	}
}

func (u *upnp) release(ctx context.Context, g grant) error {
	return u.call(ctx, "DeletePortMapping", &struct{ NewRemoteHost, NewExternalPort, NewProtocol string }{"", number(g.external.Port()), "UDP"}, nil)
}

// address asks for the address outside.
func (u *upnp) address(ctx context.Context) (netip.Addr, error) {
	var out struct{ NewExternalIPAddress string }
	if err := u.call(ctx, "GetExternalIPAddress", &struct{}{}, &out); err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(out.NewExternalIPAddress))
	if err != nil || !addr.Is4() || addr.IsUnspecified() {
		return netip.Addr{}, errNoAddress
	}
	return addr, nil
}

// call performs an action. in and out are pointers to structs of strings; out may be nil.
func (u *upnp) call(ctx context.Context, action string, in, out any) error {
	err := u.client.PerformActionCtx(ctx, u.kind, action, in, out)
	if fault := (*soap.SOAPFaultError)(nil); errors.As(err, &fault) {
		return fmt.Errorf("%s: the router refuses, code %d %q: %w", action, fault.Detail.UPnPError.Errorcode, fault.Detail.UPnPError.ErrorDescription, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

func number(port uint16) string { return strconv.Itoa(int(port)) }

// localTo returns our address towards the router. Nothing is sent.
func localTo(gateway netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(gateway, ssdpPort)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
