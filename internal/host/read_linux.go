package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// readAddrs lists the addresses of all interfaces.
func readAddrs() ([]hostAddr, error) {
	links, err := retry(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	type iface struct {
		name string
		live bool
	}
	byIndex := make(map[int]iface, len(links))
	for _, l := range links {
		a := l.Attrs()
		const flags = unix.IFF_UP | unix.IFF_RUNNING
		byIndex[a.Index] = iface{a.Name, a.RawFlags&flags == flags && a.RawFlags&unix.IFF_LOOPBACK == 0}
	}
	list, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var out []hostAddr
	for _, a := range list {
		p, ok := fromIPNet(a.IPNet)
		l, known := byIndex[a.LinkIndex]
		if !ok || !known { // the interface came or went between the questions: there will be a sign of it
			continue
		}
		const dead = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
		out = append(out, hostAddr{iface: l.name, prefix: p, index: a.LinkIndex, live: l.live && a.Flags&dead == 0,
			temp: p.Addr().Is6() && a.Flags&unix.IFA_F_TEMPORARY != 0})
	}
	return out, nil
}

// readRoutes lists the unicast routes of all tables.
func readRoutes() ([]hostRoute, error) {
	links, err := retry(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	filter := &netlink.Route{Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_UNSPEC}
	var out []hostRoute
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := retry(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			dst, ok := routeDst(r)
			if !ok || r.Table == unix.RT_TABLE_LOCAL || dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast() {
				continue
			}
			index, gw := r.LinkIndex, r.Gw
			if len(r.MultiPath) > 0 {
				index, gw = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
			}
			via, _ := netip.AddrFromSlice(gw)
			out = append(out, hostRoute{iface: names[index], dst: dst, via: via.Unmap(), metric: r.Priority})
		}
	}
	return out, nil
}

// signs listens to the kernel's messages about addresses, links and routes. The channel holds one sign at most; wait
// returns when the listener is gone, after ctx has ended.
func signs(ctx context.Context) (wake <-chan struct{}, poll time.Duration, wait func(), err error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("subscribe to changes: %w", err)
	}
	c := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, s.Close)
	var wg sync.WaitGroup
	wg.Go(func() { // stopped by the end of ctx, which closes the socket
		defer stop()
		defer close(c)
		for {
			_, _, err := s.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) { // ENOBUFS: too many to tell us
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
		}
	})
	return c, time.Minute, wg.Wait, nil
}
