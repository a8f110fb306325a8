package portmap

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// news is what a router tells all hosts when it starts, and when its address outside changes.
type news struct {
	from  netip.AddrPort
	epoch epoch
}

// announced is where routers say so (RFC 6886, 3.2.1; RFC 6887, 14.1).
var announced = netip.MustParseAddrPort("224.0.0.1:5350")

const earsRest = 100 * time.Millisecond // after a read that failed: it may fail for ever

// ears listens to what one router announces.
type ears struct {
	gateway netip.Addr
	conn    *net.UDPConn // nil: closed
	news    chan news    // holds one
	run     sync.WaitGroup
}

// open begins to listen, unless it does already. Where it cannot, because another program took the port for itself, a restart
// of the router is noticed later.
func (e *ears) open(gateway netip.Addr, log *slog.Logger) {
	if e.conn != nil && e.gateway == gateway {
		return
	}
	e.close()
	c, err := net.ListenMulticastUDP("udp4", interfaceTo(gateway), net.UDPAddrFromAddrPort(announced))
	if err != nil {
		log.Debug("cannot hear the router's announcements", "error", err)
		return
	}
	e.gateway, e.conn, e.news = gateway, c, make(chan news, 1)
	e.run.Go(func() { e.listen(c, gateway, e.news) }) // ends when close closes the socket
}

func (e *ears) close() {
	if e.conn != nil {
		e.conn.Close()
		e.run.Wait()
		e.conn = nil
	}
}

// heard is nil while nobody listens.
func (e *ears) heard() <-chan news {
	if e.conn == nil {
		return nil
	}
	return e.news
}

func (e *ears) listen(c *net.UDPConn, gateway netip.Addr, to chan<- news) {
	b := make([]byte, pcpMost)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(earsRest)
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if seconds, ok := parseAnnounce(b[:n]); ok && from == netip.AddrPortFrom(gateway, controlPort) {
			select {
			case to <- news{from, epoch{seconds, time.Now()}}:
			default: // the one before says the same
			}
		}
	}
}

// parseAnnounce reads the epoch of what a PCP router (an ANNOUNCE response) or a NAT-PMP router (an address response) announces.
func parseAnnounce(b []byte) (seconds uint32, ok bool) {
	switch {
	case len(b) >= pcpHeader && b[0] == pcpVersion && b[1] == pcpResponse|pcpAnnounce && b[3] == 0:
		return binary.BigEndian.Uint32(b[8:]), true
	case len(b) == 12 && b[0] == 0 && b[1] == 0x80 && b[2] == 0 && b[3] == 0:
		return binary.BigEndian.Uint32(b[4:]), true
	}
	return 0, false
}

// interfaceTo finds the interface whose network the router is in; nil: the system's choice.
func interfaceTo(gateway netip.Addr) *net.Interface {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Contains(gateway) {
				return &i
			}
		}
	}
	return nil
}
