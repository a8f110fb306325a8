package report

import (
	"errors"
	"strings"

	"github.com/warren-vpn/warren/internal/api"
	"github.com/warren-vpn/warren/internal/join"
	"github.com/warren-vpn/warren/internal/member"
	"github.com/warren-vpn/warren/internal/wire"
)

// Explain turns the errors of the parts into errors for people.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*api.Error](err); ok {
		return err
	}
	for _, e := range []struct {
		is   error
		code api.Code
		hint string
	}{
		{member.ErrNoRight, api.CodeNoRight, "see who may: warren admin list"},
		{member.ErrUnknownMember, api.CodeNoSuchMember, "see who is there: warren members"},
		{member.ErrAmbiguous, api.CodeAmbiguous, "use more of the id: warren members --json"},
		{member.ErrNameTaken, api.CodeNameTaken, "choose another name"},
		{member.ErrAlreadyMember, api.CodeAlreadyMember, ""},
		{member.ErrRevoked, api.CodeNoRight, "it needs a new code and joins as a new member"},
		{member.ErrUnchanged, api.CodeBadRequest, ""},
		{member.ErrBadValue, api.CodeBadRequest, ""},
		{wire.ErrNotACode, api.CodeCodeInvalid, "copy the whole code, from warren1 to its end"},
		{wire.ErrCodeDamaged, api.CodeCodeInvalid, "copy the whole code again"},
		{wire.ErrCodeVersion, api.CodeCodeInvalid, "install the version of warren that made it"},
	} {
		if errors.Is(err, e.is) {
			return api.Errorf(e.code, "%v", err).Hintf("%s", e.hint)
		}
	}
	return err
}

// Refusal says in words why a join failed.
func Refusal(r join.Reason, c wire.Code) error {
	switch r {
	case join.Silent:
		where := "anywhere"
		if places := CodePlaces(c); places != "" {
			where = "at " + places
		}
		return api.Errorf(api.CodeNoIntroducer, "no member answered %s", where).
			Hintf("check that one of these machines is on and running warren, that UDP reaches it, and that the code is not withdrawn; or ask for a new code")
	case join.Used:
		return api.Errorf(api.CodeCodeUsed, "this code was used already").Hintf("ask for a new one: warren invite")
	case join.Expired:
		return api.Errorf(api.CodeCodeExpired, "this code has expired").Hintf("ask for a new one: warren invite")
	case join.Revoked:
		return api.Errorf(api.CodeCodeRevoked, "this code is no longer valid: it was withdrawn, or who made it was put out").Hintf("ask a member for a new one")
	case join.Full:
		return api.Errorf(api.CodeInternal, "the network has no free IPv4 address, or the member that answered no room on its disk").Hintf("try again through another member, or ask an admin")
	case join.TooOld:
		return api.Errorf(api.CodeNotSupported, "this version of warren is too old for the network").Hintf("install the version that the other members run")
	case join.Mismatch:
		return api.Errorf(api.CodeNoIntroducer, "who answered does not belong to the code's network").Hintf("ask for a new code; somebody may be listening at the address in this one")
	}
	return api.Errorf(api.CodeDenied, "the network refused this node").Hintf("ask an admin; a node that was put out needs a new code and joins as a new one")
}

// CodePlaces lists the addresses and targets in a code.
func CodePlaces(c wire.Code) string {
	list := Places(c.Hints)
	if list != "" && len(c.Targets) > 0 {
		list += ", "
	}
	return list + strings.Join(c.Targets, ", ")
}
