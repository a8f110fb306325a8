package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// The search for UPnP devices: SSDP.
const (
	ssdpPort  = 1900
	ssdpMost  = 2048
	ssdpTimes = 2 // that each of three datagrams is sent
)

var ssdpGroup = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)

const igd = "urn:schemas-upnp-org:device:InternetGatewayDevice:1" // later versions answer to it too

// search asks who is a gateway device and returns where the router, and nobody else, says that it describes itself.
// spec/74-portmap.md#whom
func search(ctx context.Context, s site, local netip.Addr) (*url.URL, error) {
	ctx, cancel := context.WithTimeout(ctx, s.datagrams)
	defer cancel()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))) // the address chooses the interface
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })() //nolint:errcheck // of an open socket it works
	router := netip.AddrPortFrom(s.gateway, ssdpPort)
	buf := make([]byte, ssdpMost)
	for sent := 0; ctx.Err() == nil; {
		if sent < ssdpTimes {
			errs := []error{sendSearch(c, router, igd), sendSearch(c, router, "ssdp:all"), sendSearch(c, ssdpGroup, igd)}
			if sent++; errs[0] != nil && errs[2] != nil {
				return nil, errors.Join(errs...)
			}
		}
		pause := s.datagrams // to the end
		if sent < ssdpTimes {
			pause = s.datagrams / 3
		}
		if err := c.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return nil, err
		}
		for {
			if ctx.Err() != nil {
				return nil, silence(ctx)
			}
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				break
			}
			if err != nil {
				return nil, err
			}
			if from.Addr().Unmap() != s.gateway {
				continue
			}
			if loc := location(buf[:n]); loc != nil {
				return loc, nil
			}
		}
	}
	return nil, silence(ctx)
}

func sendSearch(c *net.UDPConn, to netip.AddrPort, target string) error {
	_, err := c.WriteToUDPAddrPort(fmt.Appendf(nil, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", ssdpGroup, target), to)
	return err
}

// location reads an answer to the search; nil: it is none.
func location(b []byte) *url.URL {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil
	}
	defer r.Body.Close()
	loc, err := url.Parse(r.Header.Get("Location"))
	if err != nil || r.StatusCode != http.StatusOK || loc.Scheme != "http" || loc.Host == "" {
		return nil
	}
	return loc
}
