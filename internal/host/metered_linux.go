package host

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	managerName = "org.freedesktop.NetworkManager"
	managerPath = "/org/freedesktop/NetworkManager"
	busDefault  = "unix:path=/run/dbus/system_bus_socket"
)

// meteredTimes are how long the bus may take to answer, and how long to wait before it is tried again.
type meteredTimes struct{ answer, again time.Duration }

// WatchMetered blocks until ctx ends. It calls changed, from this goroutine, when NetworkManager begins to say that this machine
// pays for what it sends, or guesses so, and when it ends to. While there is no NetworkManager, or it does not answer, nobody says so.
func WatchMetered(ctx context.Context, changed func(metered bool)) {
	addr := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if addr == "" {
		addr = busDefault
	}
	watchMetered(ctx, addr, meteredTimes{answer: 5 * time.Second, again: time.Minute}, changed)
}

func watchMetered(ctx context.Context, addr string, times meteredTimes, changed func(metered bool)) {
	last := false
	tell := func(metered bool) {
		if metered != last {
			last = metered
			changed(metered)
		}
	}
	for {
		_ = followManager(ctx, addr, times, tell) // no bus, no manager, or none any more: all the same to us
		tell(false)
		if !sleep(ctx, times.again) {
			return
		}
	}
}

// followManager connects to the bus and tells what NetworkManager says until that ends.
func followManager(ctx context.Context, addr string, times meteredTimes, tell func(bool)) error {
	conn, err := dialBus(ctx, addr, times.answer)
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	ask := func(f func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, times.answer)
		defer cancel()
		return f(ctx)
	}
	err = ask(func(ctx context.Context) error {
		return errors.Join(
			conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchObjectPath(managerPath),
				dbus.WithMatchSender(managerName)),
			conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"),
				dbus.WithMatchArg(0, managerName)))
	})
	for err == nil {
		var v dbus.Variant
		err = ask(func(ctx context.Context) error {
			call := conn.Object(managerName, managerPath).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, managerName, "Metered")
			return call.Store(&v)
		})
		if said, ok := v.Value().(uint32); err == nil && ok {
			tell(said == 1 || said == 3) // yes, guess-yes
		} else if _, refused := errors.AsType[dbus.Error](err); refused {
			tell(false) // there is no manager: it may come
			err = nil
		}
		if err != nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-signals:
			if !ok {
				return errors.New("the bus is gone")
			}
		}
	}
	return err
}

// dialBus connects to the bus at a unix socket. Nothing in it takes longer than limit.
func dialBus(ctx context.Context, addr string, limit time.Duration) (*dbus.Conn, error) {
	path, ok := strings.CutPrefix(addr, "unix:path=")
	path, _, _ = strings.Cut(path, ",")
	if !ok || path == "" {
		return nil, errors.New("the bus has no socket in the file system")
	}
	d := net.Dialer{Timeout: limit}
	raw, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn, err := dbus.NewConn(raw, dbus.WithContext(ctx))
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
