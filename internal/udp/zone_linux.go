package udp

import (
	"net"
	"net/netip"
	"time"
)

// zones turns zones of link-local addresses, which are names of interfaces, into numbers and back. The kernel is asked at most
// once in zonesFor for each, and of maxZones at most: a name may get another number, and a number another name.
type zones struct {
	names   map[uint32]string
	numbers map[string]uint32
	until   time.Time
}

const (
	zonesFor = 10 * time.Second
	maxZones = 64
)

// fresh forgets what is too old, or too much.
func (z *zones) fresh() {
	now := time.Now()
	if now.Before(z.until) && len(z.names) < maxZones && len(z.numbers) < maxZones {
		return
	}
	z.names, z.numbers, z.until = map[uint32]string{}, map[string]uint32{}, now.Add(zonesFor)
}

// with names the interface of a link-local address in it; other addresses, and those of interfaces that are gone, stay as they are.
func (z *zones) with(a netip.Addr, number uint32) netip.Addr {
	if number == 0 || !a.IsLinkLocalUnicast() {
		return a
	}
	z.fresh()
	name, ok := z.names[number]
	if !ok {
		if i, err := net.InterfaceByIndex(int(number)); err == nil {
			name = i.Name
		}
		z.names[number] = name
	}
	return a.WithZone(name)
}

// number is the interface that an address names; 0, by which the kernel chooses one, if none or one that is gone.
func (z *zones) number(a netip.Addr) uint32 {
	name := a.Zone()
	if name == "" {
		return 0
	}
	z.fresh()
	number, ok := z.numbers[name]
	if !ok {
		if i, err := net.InterfaceByName(name); err == nil {
			number = uint32(i.Index)
		}
		z.numbers[name] = number
	}
	return number
}
