package member

import (
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/warren-vpn/warren/internal/wire"
)

// MaxVersion is the limit of the version in node info, in bytes.
const MaxVersion = 32

// Limits of what a record may say (spec/20-records.md#fields).
const (
	maxName      = 63
	maxGroups    = 16
	maxEndpoints = 16
	maxStreams   = 4
	maxStream    = 255
	maxGateways  = 8
	maxReason    = 200
	maxRoots     = 8
	maxTime      = 253402300799 // the last second of the year 9999
)

// ValidName reports whether s can name a network, a member, a device or a group: 1 to 63 of a-z, 0-9 and -, with no - at
// either end.
func ValidName(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// validate checks what a decoded payload says, as far as that can be judged without other records.
func validate(body any) error {
	switch b := body.(type) {
	case *wire.Genesis:
		return validGenesis(b)
	case *wire.Admin:
		return all(validRights(b.Rights), validTime(b.Time))
	case *wire.Invite:
		return validInvite(b)
	case *wire.Member:
		return validMember(b)
	case *wire.Revocation:
		return validRevocation(b)
	case *wire.NodeInfo:
		return validNodeInfo(b)
	case *wire.Device:
		return validDevice(b)
	case *wire.Adopt:
		return validTime(b.Time)
	case *wire.Policy:
		return validPolicy(b)
	case *wire.Rendezvous:
		return validRendezvous(b)
	}
	return nil
}

func validGenesis(g *wire.Genesis) error {
	if g.Threshold != 1 {
		return fmt.Errorf("threshold of %d roots is not supported", g.Threshold)
	}
	if len(g.Roots) == 0 || len(g.Roots) > maxRoots {
		return fmt.Errorf("%d roots", len(g.Roots))
	}
	for i, r := range g.Roots {
		if slices.Contains(g.Roots[:i], r) {
			return errors.New("a root is listed twice")
		}
	}
	_, err := parsePool(g.Pool4)
	return all(err, validName(g.Name), validTime(g.Created))
}

func validInvite(v *wire.Invite) error {
	if v.Uses == 0 {
		return errors.New("invite without uses")
	}
	if v.NotAfter < v.Time {
		return errors.New("invite ends before it begins")
	}
	return all(validGroups(v.Groups), validTime(v.Time), validTime(v.NotAfter))
}

func validMember(m *wire.Member) error {
	if (m.Invite == nil) != (m.Witness == nil) {
		return errors.New("invite and witness go together")
	}
	return all(validName(m.Name), validGroups(m.Groups), validTime(m.Time))
}

func validRevocation(r *wire.Revocation) error {
	if r.Scope != wire.ScopeAll && r.Scope != wire.ScopeAdmin {
		return fmt.Errorf("scope %d", r.Scope)
	}
	return all(validText("reason", r.Reason, maxReason), validTime(r.Time))
}

func validNodeInfo(n *wire.NodeInfo) error {
	if n.WG.IsZero() {
		return errors.New("no WireGuard key")
	}
	if n.Name != "" && !ValidName(n.Name) {
		return errors.New("name is not of its form")
	}
	if len(n.Endpoints) > maxEndpoints {
		return fmt.Errorf("%d endpoints", len(n.Endpoints))
	}
	for _, e := range n.Endpoints {
		ap, err := wire.ParseEndpoint(e)
		if err != nil {
			return err
		}
		if ap.Addr().IsMulticast() || ap.Addr().Is4() != (len(e) == 6) {
			return fmt.Errorf("endpoint %v is not of its form", ap)
		}
	}
	if len(n.Streams) > maxStreams {
		return fmt.Errorf("%d targets of streams", len(n.Streams))
	}
	for _, s := range n.Streams {
		if err := validText("target of a stream", s, maxStream); err != nil {
			return err
		}
	}
	return all(validText("version", n.Version, MaxVersion), validTime(n.Time))
}

func validDevice(d *wire.Device) error {
	if d.WG.IsZero() {
		return errors.New("no WireGuard key")
	}
	if len(d.Gateways) == 0 || len(d.Gateways) > maxGateways {
		return fmt.Errorf("%d gateways", len(d.Gateways))
	}
	for i, g := range d.Gateways {
		if slices.Contains(d.Gateways[:i], g) {
			return errors.New("a gateway is listed twice")
		}
	}
	return all(validName(d.Name), validTime(d.Time))
}

// all returns the first error.
func all(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func validName(s string) error {
	if !ValidName(s) {
		return errors.New("name is not of its form")
	}
	return nil
}

func validTime(t int64) error {
	if t <= 0 || t > maxTime {
		return fmt.Errorf("time %d", t)
	}
	return nil
}

// validRights wants at least one right that this version knows; later versions may add others.
func validRights(r wire.Rights) error {
	if r&wire.AllRights == 0 {
		return errors.New("no rights")
	}
	return nil
}

func validGroups(groups []string) error {
	if len(groups) > maxGroups {
		return fmt.Errorf("%d groups", len(groups))
	}
	for i, g := range groups {
		if !ValidName(g) {
			return errors.New("group name is not of its form")
		}
		if i > 0 && groups[i-1] >= g {
			return errors.New("groups are not in ascending order")
		}
	}
	return nil
}

// validText lets through what can be shown on a terminal.
func validText(what, s string, limit int) error {
	if len(s) > limit || !utf8.ValidString(s) {
		return fmt.Errorf("%s of %d bytes", what, len(s))
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s with the character %U", what, r)
		}
	}
	return nil
}
