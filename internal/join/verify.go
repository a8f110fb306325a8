package join

import (
	"errors"
	"fmt"
	"strings"

	"github.com/warren-vpn/warren/internal/key"
	"github.com/warren-vpn/warren/internal/wire"
)

var errMismatch = errors.New("not what the code promised")

// checkOffer checks an offer that goes on against the newcomer's own config (spec/30-join.md#offer). The draft is the decoded
// o.Draft.
func checkOffer(cfg *JoinerConfig, o wire.JoinOffer) (draft wire.Member, err error) {
	if err := wire.UnmarshalCanonical(o.Draft, &draft); err != nil {
		return wire.Member{}, fmt.Errorf("draft: %w", err)
	}
	switch {
	case draft.Key != cfg.Identity.Public():
		return wire.Member{}, fmt.Errorf("draft is for another key: %w", errMismatch)
	case draft.Invite == nil || draft.Witness == nil:
		return wire.Member{}, fmt.Errorf("draft without invite or witness: %w", errMismatch)
	case o.Status == wire.JoinKnown:
		return draft, nil // its name and witness were settled when it was made
	case *draft.Witness != o.Introducer:
		return wire.Member{}, fmt.Errorf("draft names another witness: %w", errMismatch)
	case !nameFits(draft.Name, cfg.Name):
		return wire.Member{}, fmt.Errorf("draft has another name: %w", errMismatch)
	}
	return draft, nil
}

// nameFits reports whether got is wanted, or wanted with -N behind it, cut so that it stays within MaxJoinName.
func nameFits(got, wanted string) bool {
	if got == wanted {
		return true
	}
	i := strings.LastIndexByte(got, '-')
	if i < 0 || i+1 == len(got) || strings.Trim(got[i+1:], "0123456789") != "" {
		return false
	}
	return got[:i] == wanted || len(got) == wire.MaxJoinName && i > 0 && strings.HasPrefix(wanted, got[:i])
}

// checkNodeInfo checks that raw is a node info record of network, signed by owner alone, with the static key of the handshake.
func checkNodeInfo(network key.NetworkID, raw []byte, owner key.Public, static key.WGPublic) error {
	r, err := wire.ParseRecord(network, raw)
	if err != nil {
		return fmt.Errorf("node info: %w", err)
	}
	var info wire.NodeInfo
	if r.Kind != wire.KindNodeInfo || len(r.Sigs) != 1 || r.Sigs[0].Signer != owner || !r.Verify(network) {
		return fmt.Errorf("node info is not of its owner: %w", errMismatch)
	}
	if err := wire.UnmarshalCanonical(r.Payload, &info); err != nil {
		return fmt.Errorf("node info: %w", err)
	}
	if info.WG != static {
		return fmt.Errorf("node info has another WireGuard key: %w", errMismatch)
	}
	return nil
}

// checkGrant checks the records of a grant against the offer (spec/30-join.md#grant).
func checkGrant(cfg *JoinerConfig, o wire.JoinOffer, static key.WGPublic, records [][]byte) error {
	var draft wire.Member
	if err := wire.UnmarshalCanonical(o.Draft, &draft); err != nil {
		return fmt.Errorf("draft: %w", err)
	}
	invite, member, info := false, false, false
	for i, raw := range records {
		r, err := wire.ParseRecord(o.Network, raw)
		if err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		if genesis := r.Kind == wire.KindGenesis && key.NetworkID(r.ID) == o.Network; (i == 0) != genesis {
			return fmt.Errorf("grant without the genesis of its network: %w", errMismatch)
		}
		switch r.Kind {
		case wire.KindInvite:
			invite = invite || isInvite(cfg, &r, *draft.Invite)
		case wire.KindMember:
			member = member || isMember(cfg, &r, o.Network, draft)
		case wire.KindNodeInfo:
			info = info || checkNodeInfo(o.Network, raw, o.Introducer, static) == nil
		}
	}
	if !invite || !member || !info {
		return fmt.Errorf("grant: invite %t, member %t, introducer's node info %t: %w", invite, member, info, errMismatch)
	}
	return nil
}

// isInvite reports whether r is the record of the code's invite, and the one that the draft names.
func isInvite(cfg *JoinerConfig, r *wire.Record, prefix wire.RecordPrefix) bool {
	var inv wire.Invite
	return wire.UnmarshalCanonical(r.Payload, &inv) == nil && inv.Key == cfg.Seed.Identity().Public() && r.ID.Prefix() == prefix
}

// isMember reports whether r admits the newcomer by the draft's invite, signed by all three. It need not be the draft: when
// two introducers drafted, the network keeps one.
func isMember(cfg *JoinerConfig, r *wire.Record, network key.NetworkID, draft wire.Member) bool {
	var m wire.Member
	if wire.UnmarshalCanonical(r.Payload, &m) != nil || m.Invite == nil || m.Witness == nil {
		return false
	}
	return m.Key == draft.Key && *m.Invite == *draft.Invite && r.SignedBy(cfg.Seed.Identity().Public()) && r.SignedBy(m.Key) &&
		r.SignedBy(*m.Witness) && r.Verify(network)
}
