package member

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

// Policy is what the admins of a network have settled for all of its members (spec/21-roster.md#policy).
type Policy struct {
	Broadcast bool     // members pass broadcast and multicast packets to each other; default true
	Mask      bool     // datagrams are masked (spec/75-mask.md); default false
	Relays    uint64   // who may relay for others: wire.PolicyNone, PolicyAll (the default) or PolicyGroups; see [Roster.MayRelay]
	Groups    []string // with PolicyGroups: those whose members may relay
	Stated    []Stated // who settled what, by number of setting; without what nobody stated or this version does not know
}

// Stated says whose word on a setting counts.
type Stated struct {
	Setting wire.Setting
	By      key.NodeID
	Time    time.Time // as it says
	Record  wire.RecordID
}

// PolicyLine is one setting, in words for people.
type PolicyLine struct {
	Name  string     // such as "relays"
	Value string     // such as "all"; groups with commas between them
	By    key.NodeID // who stated it; zero: nobody has, and Value is the default
	Since time.Time  // zero when nobody has stated it
}

func defaultPolicy() Policy { return Policy{Broadcast: true, Relays: wire.PolicyAll} }

// The words of settings and values.
const (
	nameBroadcast = "broadcast"
	nameRelays    = "relays"
	nameMask      = "mask"
	wordOn        = "on"
	wordOff       = "off"
	wordAll       = "all"
	wordNone      = "none"
	groupPrefix   = "group:"
)

// settings are those that this version knows.
var settings = []wire.Setting{wire.SettingBroadcast, wire.SettingRelays, wire.SettingMask}

// Lines lists all settings that this version knows, in a fixed order. What Value says, [PolicyWords] reads.
func (p Policy) Lines() []PolicyLine {
	broadcast, relays, mask := wordOff, wordNone, wordOff
	if p.Broadcast {
		broadcast = wordOn
	}
	if p.Mask {
		mask = wordOn
	}
	switch p.Relays {
	case wire.PolicyAll:
		relays = wordAll
	case wire.PolicyGroups:
		relays = groupPrefix + strings.Join(p.Groups, ","+groupPrefix)
	}
	out := []PolicyLine{{Name: nameBroadcast, Value: broadcast}, {Name: nameRelays, Value: relays}, {Name: nameMask, Value: mask}}
	for i, setting := range settings {
		for _, s := range p.Stated {
			if s.Setting == setting {
				out[i].By, out[i].Since = s.By, s.Time
			}
		}
	}
	return out
}

// PolicyWords reads a setting as people write it: "broadcast" or "mask" with "on" or "off", or "relays" with "all", "none" or groups,
// such as "group:servers,group:office". It is for [Set.SetPolicy]. The error is ErrBadValue.
func PolicyWords(name, value string) (wire.Policy, error) {
	switch name {
	case nameBroadcast, nameMask:
		setting := wire.SettingBroadcast
		if name == nameMask {
			setting = wire.SettingMask
		}
		switch value {
		case wordOn:
			return wire.Policy{Setting: setting, Value: wire.PolicyAll}, nil
		case wordOff:
			return wire.Policy{Setting: setting, Value: wire.PolicyNone}, nil
		}
		return wire.Policy{}, fmt.Errorf("%q for %s is %w: use %s or %s", value, name, ErrBadValue, wordOn, wordOff)
	case nameRelays:
		switch value {
		case wordAll:
			return wire.Policy{Setting: wire.SettingRelays, Value: wire.PolicyAll}, nil
		case wordNone:
			return wire.Policy{Setting: wire.SettingRelays, Value: wire.PolicyNone}, nil
		}
		var groups []string
		for word := range strings.SplitSeq(value, ",") {
			group, ok := strings.CutPrefix(word, groupPrefix)
			if !ok || !ValidName(group) {
				return wire.Policy{}, fmt.Errorf("%q for %s is %w: use %s, %s, or groups with commas, such as %sservers", value, name, ErrBadValue, wordAll, wordNone, groupPrefix)
			}
			groups = append(groups, group)
		}
		return wire.Policy{Setting: wire.SettingRelays, Value: wire.PolicyGroups, Groups: sortedGroups(groups)}, nil
	}
	return wire.Policy{}, fmt.Errorf("the setting %q is %w: there are %s, %s and %s", name, ErrBadValue, nameBroadcast, nameRelays, nameMask)
}

// MayRelay reports whether the policy lets a member relay for others. Devices and strangers never may.
func (r *Roster) MayRelay(id key.NodeID) bool {
	m, ok := r.ByID(id)
	if !ok || m.Device {
		return false
	}
	switch r.Policy.Relays {
	case wire.PolicyAll:
		return true
	case wire.PolicyGroups:
		return slices.ContainsFunc(m.Groups, func(g string) bool { return slices.Contains(r.Policy.Groups, g) })
	}
	return false
}

// SetPolicy states one setting for the whole network; see [PolicyWords]. Seq and Time of p are set here. The error is
// ErrUnchanged when the setting has that value already.
func (s *Set) SetPolicy(by key.Identity, now time.Time, p wire.Policy) (wire.Record, error) {
	if err := s.need(by, wire.RightPolicy, "change the policy"); err != nil {
		return wire.Record{}, err
	}
	r := s.Roster()
	p.Groups = sortedGroups(p.Groups)
	p.Seq, p.Time = 1, now.Unix()
	if err := validate(&p); err != nil {
		return wire.Record{}, fmt.Errorf("%w: %w", ErrBadValue, err)
	}
	old, next := r.Policy, r.Policy
	if !next.apply(&p) {
		return wire.Record{}, fmt.Errorf("the setting %d is %w: this version does not know it", p.Setting, ErrBadValue)
	}
	if next.Broadcast == old.Broadcast && next.Mask == old.Mask && next.Relays == old.Relays && slices.Equal(next.Groups, old.Groups) {
		return wire.Record{}, fmt.Errorf("the policy %w", ErrUnchanged)
	}
	for _, g := range p.Groups {
		if !r.hasGroup(g) {
			return wire.Record{}, fmt.Errorf("the group %q is %w: no member and no invite has it", g, ErrBadValue)
		}
	}
	if e := s.evaluate().policy[p.Setting]; e != nil {
		if p.Seq = e.body.(*wire.Policy).Seq; p.Seq == math.MaxUint64 {
			return wire.Record{}, fmt.Errorf("%w: %s has written a policy that nothing can follow; put %[2]s out as an admin whose key was in wrong hands", ErrNoRight, r.nameOf(e.signerID))
		}
		p.Seq++
	}
	return seal(s.network, wire.KindPolicy, &p, by)
}

func (r *Roster) hasGroup(g string) bool {
	return slices.ContainsFunc(r.Members, func(m Member) bool { return slices.Contains(m.Groups, g) }) ||
		slices.ContainsFunc(r.Pending, func(p Pending) bool { return slices.Contains(p.Groups, g) }) ||
		slices.ContainsFunc(r.Invites, func(v Invite) bool { return !v.Revoked && slices.Contains(v.Groups, g) })
}

// apply takes a valid statement into p; false: this version does not know the setting.
func (p *Policy) apply(b *wire.Policy) bool {
	switch b.Setting {
	case wire.SettingBroadcast:
		p.Broadcast = b.Value == wire.PolicyAll
	case wire.SettingRelays:
		p.Relays, p.Groups = b.Value, b.Groups
	case wire.SettingMask:
		p.Mask = b.Value == wire.PolicyAll
	default:
		return false
	}
	return true
}

// settlePolicy finds the record that counts for each setting, known or not. Of each signer's records the newest alone can
// ever count, so that is all there is to adopt when the signer is put out.
func (v *evaluation) settlePolicy() {
	type seat struct {
		by      key.NodeID
		setting wire.Setting
	}
	all := v.set.sorted(wire.KindPolicy) // of equal ones the last counts
	newest := map[seat]*entry{}
	for _, e := range all {
		at := seat{e.signerID, e.body.(*wire.Policy).Setting}
		if v.vouches(e.signerID, wire.RightPolicy, e.rec.ID) && replaces(e, newest[at]) {
			newest[at] = e
		}
	}
	for _, e := range all {
		at := seat{e.signerID, e.body.(*wire.Policy).Setting}
		if newest[at] != e {
			continue
		}
		v.vouch(e.signerID, e)
		if replaces(e, v.policy[at.setting]) {
			v.policy[at.setting] = e
		}
	}
}

// replaces reports whether e counts rather than old, which comes before it in the order of records or is nil.
func replaces(e, old *entry) bool {
	return old == nil || e.body.(*wire.Policy).Seq >= old.body.(*wire.Policy).Seq
}

func (v *evaluation) listPolicy(r *Roster) {
	for _, setting := range settings {
		if e := v.policy[setting]; e != nil {
			r.Policy.apply(e.body.(*wire.Policy)) // known, and validated when it was accepted
			r.Policy.Stated = append(r.Policy.Stated, Stated{Setting: setting, By: e.signerID, Time: unix(e.time), Record: e.rec.ID})
		}
	}
}

// validPolicy checks the values of the settings that this version knows, and of others only the general form.
func validPolicy(p *wire.Policy) error {
	limit := uint64(math.MaxUint64)
	switch p.Setting {
	case 0:
		return errors.New("policy without a setting")
	case wire.SettingBroadcast, wire.SettingMask:
		limit = wire.PolicyAll
	case wire.SettingRelays:
		limit = wire.PolicyGroups
	}
	if p.Value > limit {
		return fmt.Errorf("value %d of the setting %d", p.Value, p.Setting)
	}
	if limit <= wire.PolicyGroups && (p.Value == wire.PolicyGroups) != (len(p.Groups) > 0) {
		return fmt.Errorf("value %d with %d groups", p.Value, len(p.Groups))
	}
	return all(validGroups(p.Groups), validTime(p.Time))
}
