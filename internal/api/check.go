package api

import (
	"net/netip"
	"strings"

	"github.com/warren-vpn/warren/internal/wire"
)

// Limits of requests (spec/60-api.md#requests).
const (
	// MaxUses is the limit of [InviteRequest.Uses].
	MaxUses = 10000
	// MaxExpires is the limit of [InviteRequest.Expires] in seconds: one year.
	MaxExpires = 366 * 24 * 3600
	// MaxGroups is the limit of [InviteRequest.Groups].
	MaxGroups = 8

	maxCode        = 512 // the code's own parser knows better
	maxPingTimeout = 10_000
)

func (r *CreateRequest) check() error {
	if err := CheckName("network", r.Name); err != nil {
		return err
	}
	if err := CheckName("node", r.NodeName); err != nil {
		return err
	}
	return CheckPool(r.Pool)
}

// CheckPool reports why p cannot be the IPv4 pool of a network, as an [*Error]. The zero Prefix is the default pool.
func CheckPool(p netip.Prefix) error {
	const hint = "use a private IPv4 range of /8 to /29, for example 10.77.0.0/16"
	switch {
	case !p.IsValid():
		return nil
	case !p.Addr().Is4():
		return Errorf(CodeBadRequest, "the pool %v is not IPv4", p).Hintf("%s; IPv6 addresses need no pool", hint)
	case p.Bits() < 8 || p.Bits() > 29:
		return Errorf(CodeBadRequest, "the pool %v is too %s", p, map[bool]string{true: "large", false: "small"}[p.Bits() < 8]).Hintf(hint)
	case p.Masked() != p:
		return Errorf(CodeBadRequest, "the pool %v has bits behind its length", p).Hintf("did you mean %v?", p.Masked())
	case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() || p.Contains(netip.IPv4Unspecified()):
		return Errorf(CodeBadRequest, "the pool %v is reserved", p).Hintf(hint)
	}
	return nil
}

func (r *JoinRequest) check() error {
	r.Code = strings.TrimSpace(r.Code)
	switch {
	case r.Code == "":
		return Errorf(CodeCodeInvalid, "the code is empty")
	case len(r.Code) > maxCode:
		return Errorf(CodeCodeInvalid, "that is not a code: it has %d characters", len(r.Code))
	}
	return CheckName("node", r.Name)
}

func (r *InviteRequest) check() error {
	switch {
	case r.Uses < 1 || r.Uses > MaxUses:
		return Errorf(CodeBadRequest, "an invite for %d uses", r.Uses).Hintf("use 1 to %d", MaxUses)
	case r.Expires < 1 || r.Expires > MaxExpires:
		return Errorf(CodeBadRequest, "an invite that expires in %d s", r.Expires).Hintf("use 1 s to 1 year")
	case len(r.Groups) > MaxGroups:
		return Errorf(CodeBadRequest, "an invite with %d groups", len(r.Groups)).Hintf("use at most %d", MaxGroups)
	}
	for _, g := range r.Groups {
		if err := CheckName("group", g); err != nil {
			return err
		}
	}
	return nil
}

func (r *MemberRequest) check() error { return checkMember(r.Member) }

func (r *RenameRequest) check() error { return CheckName("node", r.Name) }

func (r *DeviceRequest) check() error { return CheckName("device", r.Name) }

func (r *RevokeRequest) check() error {
	if err := checkMember(r.Member); err != nil {
		return err
	}
	return checkReason(r.Reason)
}

func (r *AdminRemoveRequest) check() error {
	if err := checkMember(r.Member); err != nil {
		return err
	}
	return checkReason(r.Reason)
}

func (r *AdminRequest) check() error {
	if len(r.Rights) == 0 {
		return Errorf(CodeBadRequest, "no right is named")
	}
	for _, name := range r.Rights {
		if _, ok := wire.ParseRight(name); !ok {
			return Errorf(CodeBadRequest, "there is no right %q", name).Hintf("rights are %s", wire.AllRights)
		}
	}
	return checkMember(r.Member)
}

func (r *PolicyRequest) check() error {
	switch {
	case r.Setting == "":
		return Errorf(CodeBadRequest, "no setting is named")
	case r.Value == "" || len(r.Value) > MaxSetting:
		return Errorf(CodeBadRequest, "a value of %d bytes for the setting %q", len(r.Value), r.Setting).Hintf("use 1 to %d", MaxSetting)
	}
	return nil
}

func (r *PingRequest) check() error {
	if r.Timeout == 0 {
		r.Timeout = defaultPingTimeout.Milliseconds()
	}
	if r.Timeout < 1 || r.Timeout > maxPingTimeout {
		return Errorf(CodeBadRequest, "a ping timeout of %d ms", r.Timeout).Hintf("use 1 to %d ms", maxPingTimeout)
	}
	return checkMember(r.Member)
}

func checkMember(m string) error {
	if m == "" {
		return Errorf(CodeBadRequest, "no member is named")
	}
	return nil
}

func checkReason(s string) error {
	if len(s) > MaxReason {
		return Errorf(CodeBadRequest, "a reason of %d bytes", len(s)).Hintf("use at most %d", MaxReason)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return Errorf(CodeBadRequest, "a reason with control characters")
		}
	}
	return nil
}
