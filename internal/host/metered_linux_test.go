package host

import (
	"bufio"
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// startBus runs a bus of this test's own and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs the command dbus-daemon (Debian package dbus)")
	}
	addr := "unix:path=" + filepath.Join(t.TempDir(), "bus")
	cmd := exec.Command(program, "--session", "--nofork", "--nopidfile", "--address="+addr, "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may be gone
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it listens
		t.Fatal(err)
	}
	return addr
}

// manager is a NetworkManager on a bus, as far as its property Metered goes.
type manager struct {
	t    *testing.T
	conn *dbus.Conn

	mu      sync.Mutex // guards metered
	metered uint32
}

func startManager(t *testing.T, addr string, metered uint32) *manager {
	t.Helper()
	conn, err := dbus.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn, metered: metered}
	t.Cleanup(m.leave)
	if err := conn.Export(m, managerPath, "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName(managerName, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
	return m
}

// Get is the method of org.freedesktop.DBus.Properties.
func (m *manager) Get(_, property string) (dbus.Variant, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if property != "Metered" {
		return dbus.Variant{}, dbus.MakeFailedError(context.Canceled)
	}
	return dbus.MakeVariant(m.metered), nil
}

func (m *manager) set(metered uint32) {
	m.t.Helper()
	m.mu.Lock()
	m.metered = metered
	m.mu.Unlock()
	err := m.conn.Emit(managerPath, "org.freedesktop.DBus.Properties.PropertiesChanged", managerName, map[string]dbus.Variant{"Metered": dbus.MakeVariant(metered)}, []string{})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *manager) leave() { m.conn.Close() }

// watch starts watchMetered until the test ends, and returns what it says.
func watch(t *testing.T, addr string, times meteredTimes) <-chan bool {
	said := make(chan bool, 16)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { watchMetered(ctx, addr, times, func(m bool) { said <- m }) }) // ends with the test
	t.Cleanup(func() {
		cancel()
		ended := make(chan struct{})
		go func() { wg.Wait(); close(ended) }() // ends with watchMetered, or the test has failed
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Error("watchMetered does not end")
		}
	})
	return said
}

func next(t *testing.T, said <-chan bool, want bool, what string) {
	t.Helper()
	select {
	case got := <-said:
		if got != want {
			t.Fatalf("%s: metered %v, want %v", what, got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: nothing is said, want metered %v", what, want)
	}
}

var soon = meteredTimes{answer: 5 * time.Second, again: 50 * time.Millisecond}

// The values are those of NMMetered: 1 yes, 2 no, 3 yes as it guesses, 4 no as it guesses, 0 unknown.
func TestMeteredAsNetworkManagerSays(t *testing.T) {
	addr := startBus(t)
	said := watch(t, addr, soon)
	m := startManager(t, addr, 1) // it comes after us
	next(t, said, true, "yes")
	m.set(2)
	next(t, said, false, "no")
	m.set(3)
	next(t, said, true, "perhaps yes")
	m.set(4)
	next(t, said, false, "perhaps no")
	m.set(1)
	next(t, said, true, "yes again")
	m.leave()
	next(t, said, false, "NetworkManager is gone")
	m = startManager(t, addr, 3)
	next(t, said, true, "NetworkManager is back")
	m.set(0)
	next(t, said, false, "unknown")
}

// A bus that comes late, and one that is no file.
func TestMeteredWithoutABus(t *testing.T) {
	for _, addr := range []string{"unix:path=" + filepath.Join(t.TempDir(), "none"), "unix:abstract=/nobody", "tcp:host=localhost", ""} {
		said := watch(t, addr, meteredTimes{time.Second, time.Millisecond})
		select {
		case m := <-said:
			t.Errorf("%q: metered %v, though nobody says so", addr, m)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A bus that takes the connection, and then says nothing, or stops in the middle: it is given up, and tried again.
func TestMeteredOnABusThatHangs(t *testing.T) {
	for _, answers := range []int{0, 1, 2} {
		path := filepath.Join(t.TempDir(), "bus")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		taken := make(chan struct{}, 100)
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				taken <- struct{}{}
				go hang(c, answers) // ends when the other side closes
			}
		}()
		said := watch(t, "unix:path="+path, meteredTimes{100 * time.Millisecond, time.Millisecond})
		for range 3 {
			select {
			case <-taken:
			case m := <-said:
				t.Errorf("metered %v", m)
			case <-time.After(20 * time.Second):
				t.Fatalf("a bus that answers %d times is not given up", answers)
			}
		}
	}
}

// hang plays the first answers of a bus and then reads only.
func hang(c net.Conn, answers int) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		reply := ""
		switch {
		case answers == 0:
		case strings.HasPrefix(strings.TrimLeft(line, "\x00"), "AUTH"):
			reply = "OK 0123456789abcdef0123456789abcdef\r\n"
			answers--
		case strings.HasPrefix(line, "NEGOTIATE"):
			reply = "ERROR\r\n"
			answers--
		}
		if _, err := c.Write([]byte(reply)); err != nil {
			return
		}
	}
}
