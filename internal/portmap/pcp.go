package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// PCP, RFC 6887. A request is sent up to three times: at once, after 250 ms, after 750 ms.
const (
	controlPort = 5351 // of PCP and NAT-PMP
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpResponse = 0x80
	pcpHeader   = 24
	pcpMessage  = 60
	pcpMost     = 1100
	protocolUDP = 17
	firstPause  = 250 * time.Millisecond
)

// pcp is PCP at one router.
type pcp struct {
	site
	nonce [12]byte
}

func (p *pcp) name() string { return PCP }

func (p *pcp) probe(ctx context.Context) error {
	_, err := p.ask(ctx, pcpAnnounce, 0, netip.AddrPort{})
	if code := pcpError(0); errors.As(err, &code) { // "I do not know this" is said in the language that was asked for
		return nil
	}
	return err
}

func (p *pcp) obtain(ctx context.Context, want netip.AddrPort) (grant, error) {
	if want.Port() == 0 {
		want = netip.AddrPortFrom(netip.IPv4Unspecified(), p.port)
	}
	r, err := p.ask(ctx, pcpMap, p.lifetime, want)
	if err != nil {
		return grant{}, err
	}
	if r.external.Addr().IsUnspecified() || r.external.Port() == 0 || r.lifetime == 0 {
		return grant{}, errNoAddress
	}
	return grant{external: r.external, lifetime: r.lifetime, epoch: r.epoch}, nil
}

func (p *pcp) release(ctx context.Context, g grant) error {
	_, err := p.ask(ctx, pcpMap, 0, g.external)
	return err
}

// ask sends a request until an answer to it comes.
func (p *pcp) ask(ctx context.Context, op byte, lifetime time.Duration, want netip.AddrPort) (answer pcpAnswer, err error) {
	err = dialogue(ctx, p.site, func(local netip.Addr) []byte {
		b := appendPCP(nil, op, lifetime, local)
		if op == pcpMap {
			b = appendPCPMap(b, p.nonce, p.port, want)
		}
		return b
	}, func(b []byte) (err error) {
		answer, err = parsePCP(b, op, p.nonce, p.port)
		answer.epoch.at = time.Now()
		return err
	})
	return answer, err
}

// appendPCP appends the header of a request of ours.
//
//	version | opcode | 0 (2) | lifetime u32 | our address (16)
func appendPCP(b []byte, op byte, lifetime time.Duration, local netip.Addr) []byte {
	b = append(b, pcpVersion, op, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(lifetime/time.Second))
	from := local.As16()
	return append(b, from[:]...)
}

// appendPCPMap appends the rest of a MAP request.
//
//	nonce (12) | protocol | 0 (3) | our port | port outside | address outside (16)
func appendPCPMap(b []byte, nonce [12]byte, port uint16, want netip.AddrPort) []byte {
	b = append(b, nonce[:]...)
	b = append(b, protocolUDP, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, want.Port())
	addr := want.Addr()
	if !addr.Is4() {
		addr = netip.IPv4Unspecified()
	}
	outside := addr.As16()
	return append(b, outside[:]...)
}

// pcpAnswer is what a success says.
type pcpAnswer struct {
	lifetime time.Duration
	epoch    epoch // without its time
	external netip.AddrPort
}

// pcpError is a result code, RFC 6887, 7.4.
type pcpError uint8

// Error names the ones that people can do something about.
func (e pcpError) Error() string {
	switch e {
	case 2:
		return "the router does not allow it"
	case 8:
		return "the router has no more room"
	case 12:
		return "there is a NAT between this host and the router"
	}
	return fmt.Sprintf("the router refuses, code %d", uint8(e))
}

// errOther marks a datagram that is no answer to what was asked: the next one may be.
var errOther = errors.New("not an answer to the request")

// errVersion is the answer of a router that knows NAT-PMP only.
var errVersion = errors.New("the router speaks another version")

// parsePCP reads the answer to a request.
//
//	version | 0x80 + opcode | 0 | result | lifetime u32 | epoch u32 | 0 (12) | of a MAP as in the request
func parsePCP(b []byte, op byte, nonce [12]byte, port uint16) (a pcpAnswer, err error) {
	if len(b) >= 4 && b[0] != pcpVersion && b[1]&pcpResponse != 0 {
		return a, errVersion
	}
	if len(b) < pcpHeader || len(b) > pcpMost || len(b)%4 != 0 || b[0] != pcpVersion || b[1] != pcpResponse|op {
		return a, errOther
	}
	if op == pcpMap {
		if len(b) < pcpMessage || !bytes.Equal(b[24:36], nonce[:]) || b[36] != protocolUDP || binary.BigEndian.Uint16(b[40:]) != port {
			return a, errOther
		}
		a.external = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[44:60])).Unmap(), binary.BigEndian.Uint16(b[42:]))
	}
	if b[3] != 0 {
		return pcpAnswer{}, pcpError(b[3])
	}
	if op == pcpMap && !a.external.Addr().Is4() {
		return pcpAnswer{}, errNoAddress
	}
	a.lifetime = time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second
	a.epoch.seconds = binary.BigEndian.Uint32(b[8:])
	return a, nil
}

// dialogue sends what request makes to the control port of the router, up to three times, until answer takes a datagram: it
// returns errOther for those that it does not want. A connected socket gets none from elsewhere.
func dialogue(ctx context.Context, s site, request func(local netip.Addr) []byte, answer func([]byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.datagrams)
	defer cancel()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.gateway, controlPort)))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })() //nolint:errcheck // of an open socket it works
	b := request(c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
	buf := make([]byte, pcpMost+1)
	for pause := firstPause; ctx.Err() == nil; pause *= 2 {
		if _, err := c.Write(b); err != nil {
			return refused(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return err
		}
		for {
			if ctx.Err() != nil { // its deadline of the past may have come before ours
				return silence(ctx)
			}
			n, err := c.Read(buf)
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				break
			}
			if err != nil {
				return refused(err)
			}
			if err := answer(buf[:n]); !errors.Is(err, errOther) {
				return err
			}
		}
	}
	return silence(ctx)
}

// refused makes one error of what the router's own system says where nobody listens.
func refused(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errSilent
	}
	return err
}

// silence says why no answer came.
func silence(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errSilent
	}
	return ctx.Err()
}
