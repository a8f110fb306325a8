package tun

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/warren-vpn/warren/internal/packet"
)

// openTest makes a device in a network namespace of its own, with the address 10.9.0.1 and a route to 10.9.0.0/24. The test's thread
// stays in the namespace and ends with the test.
func openTest(t testing.TB) Device {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace (needs root): %v", err)
	}
	d, err := Open("")
	if err != nil {
		t.Skipf("cannot make a TUN device: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	link, err := netlink.LinkByName(d.Name())
	if err == nil {
		addr, _ := netlink.ParseAddr("10.9.0.1/24")
		err = errors.Join(netlink.LinkSetMTU(link, 1420), netlink.LinkSetUp(link), netlink.AddrAdd(link, addr))
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func frames(n int) []packet.Frame {
	f := make([]packet.Frame, n)
	for i := range f {
		f[i].Data = make([]byte, FrameSize)
	}
	return f
}

// read reads frames until one is an IPv4 packet of a protocol.
func read(t testing.TB, d Device, proto byte) packet.Frame {
	t.Helper()
	for fs := frames(4); ; {
		n, err := d.ReadFrames(fs)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs[:n] {
			if packet.Version(f.Data) == 4 && f.Data[9] == proto {
				return packet.Frame{Offload: f.Offload, Data: bytes.Clone(f.Data)}
			}
		}
	}
}

func TestHostAndDeviceExchangePackets(t *testing.T) {
	d := openTest(t)
	if d.Name() != "warren0" {
		t.Errorf("the first device is %s", d.Name())
	}
	second, err := Open("")
	if err != nil || second.Name() != "warren1" {
		t.Fatalf("the second device is %v, %v", second, err)
	}
	second.Close()
	if _, err := Open("a-name-that-is-too-long"); err == nil {
		t.Error("a name that no interface can have was taken")
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: []byte{10, 9, 0, 1}, Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteToUDPAddrPort([]byte("out"), netip.MustParseAddrPort("10.9.0.2:7001")); err != nil {
		t.Fatal(err)
	}
	f := read(t, d, packet.ProtoUDP)
	if !bytes.HasSuffix(f.Data, []byte("out")) {
		t.Fatalf("the device read %x", f.Data)
	}
	// The same packet back, addresses and ports turned round: the sum of the words stays, and so the checksum that is left.
	back := f.Data
	for i := range 4 {
		back[12+i], back[16+i] = back[16+i], back[12+i]
	}
	back[20], back[21], back[22], back[23] = back[22], back[23], back[20], back[21]
	if err := d.WriteFrame(f.Offload, [][]byte{back[:24], nil, back[24:]}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "out" || from != netip.MustParseAddrPort("10.9.0.2:7001") {
		t.Fatalf("the host got %q from %v, %v", buf[:n], from, err)
	}
}

// Who names a device that cannot be made is told why.
func TestNamesThatAreTaken(t *testing.T) {
	d := openTest(t)
	if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "eth7"}}); err != nil {
		t.Skipf("cannot make an interface: %v", err)
	}
	for name, want := range map[string]string{d.Name(): "another process", "eth7": "no TUN device", "a-name-that-is-long": "longer than"} {
		if other, err := Open(name); err == nil {
			other.Close()
			t.Errorf("%s was opened", name)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCloseEndsAReader(t *testing.T) {
	d := openTest(t)
	done := make(chan error)
	go func() { // ends with Close
		for fs := frames(4); ; {
			if _, err := d.ReadFrames(fs); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("the reader ended with %v", err)
	}
	if err := errors.Join(d.Close(), ignoreClosed(d.WriteFrame(packet.Offload{}, [][]byte{make([]byte, 20)}))); err != nil {
		t.Fatal(err)
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return errors.Join(errors.New("a closed device took a packet"), err)
}

func TestWritesAllocateNothing(t *testing.T) {
	d := openTest(t)
	p := make([]byte, 28)
	p[0], p[8], p[9] = 0x45, 64, packet.ProtoUDP
	pieces := [][]byte{p[:20], p[20:]}
	if n := testing.AllocsPerRun(100, func() {
		d.WriteFrame(packet.Offload{}, pieces) //nolint:errcheck // the host may refuse it
	}); n != 0 {
		t.Fatalf("%v allocations a write", n)
	}
}
