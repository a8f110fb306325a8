package api

import (
	"errors"
	"fmt"
	"net/http"
)

// Code says what kind of error it is. Codes are stable: scripts branch on them (spec/60-api.md#errors).
type Code string

// The codes.
const (
	CodeBadRequest     Code = "bad_request"     // the request or a value in it is malformed
	CodeDenied         Code = "denied"          // the caller may not do this on this machine
	CodeNoRight        Code = "no_right"        // this node may not do this in the network
	CodeNoSuchNetwork  Code = "no_such_network" // or there is none at all
	CodeNoSuchMember   Code = "no_such_member"
	CodeNoSuchPending  Code = "no_such_pending" // nobody, or not that one, waits for approval
	CodeAmbiguous      Code = "ambiguous"       // several networks or members match
	CodeNameTaken      Code = "name_taken"      // of a network on this node, or of a member
	CodeAlreadyMember  Code = "already_member"  // of the code's network
	CodePoolConflict   Code = "pool_conflict"   // the pool overlaps a local network
	CodeLastAdmin      Code = "last_admin"      // others would be left without an admin
	CodeNetworkDown    Code = "network_down"    // the call needs the network up
	CodeBusy           Code = "busy"            // the same thing is under way already
	CodeCodeInvalid    Code = "code_invalid"    // not a code, or mistyped
	CodeCodeExpired    Code = "code_expired"
	CodeCodeUsed       Code = "code_used"
	CodeCodeRevoked    Code = "code_revoked"    // who issued it lost the right
	CodeNetworkFull    Code = "network_full"    // no address or no room is left
	CodeTooOld         Code = "too_old"         // this software, for the network
	CodeNoIntroducer   Code = "no_introducer"   // no member answered
	CodeNoAnswer       Code = "no_answer"       // the member did not answer a ping
	CodeAddressInUse   Code = "address_in_use"  // the UDP port, or an interface name or address
	CodeAlreadyRunning Code = "already_running" // another daemon has the state directory
	CodeNotSupported   Code = "not_supported"   // not on this system, or not yet
	CodeStopping       Code = "stopping"        // the daemon is about to end
	CodeNotRunning     Code = "not_running"     // made by the client: no daemon listens
	CodeInternal       Code = "internal"        // anything else
)

// codes holds the HTTP status of each code.
var codes = map[Code]int{
	CodeBadRequest: http.StatusBadRequest, CodeDenied: http.StatusForbidden, CodeNoRight: http.StatusForbidden,
	CodeNoSuchNetwork: http.StatusNotFound, CodeNoSuchMember: http.StatusNotFound, CodeNoSuchPending: http.StatusNotFound,
	CodeAmbiguous: http.StatusConflict, CodeNameTaken: http.StatusConflict, CodeAlreadyMember: http.StatusConflict,
	CodePoolConflict: http.StatusConflict, CodeLastAdmin: http.StatusConflict, CodeNetworkDown: http.StatusConflict,
	CodeBusy: http.StatusConflict, CodeCodeInvalid: http.StatusUnprocessableEntity,
	CodeCodeExpired: http.StatusUnprocessableEntity, CodeCodeUsed: http.StatusUnprocessableEntity,
	CodeCodeRevoked: http.StatusUnprocessableEntity, CodeNoIntroducer: http.StatusGatewayTimeout,
	CodeNoAnswer: http.StatusGatewayTimeout, CodeNetworkFull: http.StatusConflict, CodeTooOld: http.StatusConflict, CodeAddressInUse: http.StatusConflict,
	CodeAlreadyRunning: http.StatusConflict, CodeNotSupported: http.StatusNotImplemented,
	CodeStopping: http.StatusServiceUnavailable, CodeNotRunning: http.StatusServiceUnavailable,
	CodeInternal: http.StatusInternalServerError,
}

// HTTPStatus returns the status that a reply with c has.
func (c Code) HTTPStatus() int {
	if s, ok := codes[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is an error for the user. It holds no secrets.
type Error struct {
	Message string `json:"error"` // what happened and why: lower case, no full stop
	Code    Code   `json:"code"`
	Hint    string `json:"hint"` // what to do next; "" when there is nothing to say
}

// Errorf returns an error without a hint.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Hintf returns e with a hint.
func (e *Error) Hintf(format string, args ...any) *Error {
	f := *e
	f.Hint = fmt.Sprintf(format, args...)
	return &f
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an Error of the same code, so that errors.Is(err, ErrNotRunning) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf returns the code of err: CodeInternal when it is not an [*Error], "" when it is nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
