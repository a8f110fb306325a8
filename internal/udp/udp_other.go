//go:build !linux

package udp

import (
	"net"
	"net/netip"

	"github.com/warren-vpn/warren/internal/packet"
)

// plain moves one datagram a call through the standard library.
type plain struct{ conn *net.UDPConn }

func listen(port uint16) (Socket, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(socketBuffer)  //nolint:errcheck // a wish
	conn.SetWriteBuffer(socketBuffer) //nolint:errcheck // a wish
	return &plain{conn}, nil
}

// ReadBatch implements Socket.
func (s *plain) ReadBatch(b []packet.Datagrams) (int, error) {
	n, from, err := s.conn.ReadFromUDPAddrPort(b[0].Data[:cap(b[0].Data)])
	if err != nil {
		return 0, err
	}
	b[0] = packet.Datagrams{Data: b[0].Data[:n], Segment: n, Addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	return 1, nil
}

// WriteBatch implements Socket.
func (s *plain) WriteBatch(b []packet.Datagrams) (err error) {
	for _, d := range b {
		for rest := d.Data; len(rest) > 0; {
			n := min(d.Segment, len(rest))
			if _, e := s.conn.WriteToUDPAddrPort(rest[:n], d.Addr); e != nil {
				err = e
			}
			rest = rest[n:]
		}
	}
	return err
}

// Port implements Socket.
func (s *plain) Port() uint16 { return uint16(s.conn.LocalAddr().(*net.UDPAddr).Port) }

// Offloads implements Socket.
func (s *plain) Offloads() []string { return []string{"none"} }

// Overflow implements Socket.
func (s *plain) Overflow() uint64 { return 0 }

// Close implements Socket.
func (s *plain) Close() error { return s.conn.Close() }
