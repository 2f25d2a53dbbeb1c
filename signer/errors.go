package signer

import (
	"context"
	"errors"
	"fmt"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// Kind says what an error of a signer means for the caller.
type Kind int

const (
	// Unavailable means that the signer could not be reached, or did not answer. The attempt continues.
	Unavailable Kind = iota
	// NotYet means that the signer has the request and has not decided. The attempt continues.
	NotYet
	// Denied means that an authorized party denied the request. The attempt has ended.
	Denied
	// Invalid means that the signer can't parse or fulfil the request as it is. The attempt has ended.
	Invalid
	// Failed means that the signer tried and gave up, or the request was deleted. The attempt has ended.
	Failed
)

// String returns the kind as error messages have it.
func (k Kind) String() string {
	return [...]string{
		"signer unavailable", "not signed yet", "request denied", "request invalid", "signing failed",
	}[k]
}

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Unavailable, NotYet, Denied, Invalid, Failed} }

// Ends reports whether an error of this kind ends the attempt: the next try is a new one.
func (k Kind) Ends() bool { return k == Denied || k == Invalid || k == Failed }

// An Error says why there is no certificate.
type Error struct {
	Kind   Kind
	Reason string // For the pod's author: the request, and the answer to it. No secrets.
	Err    error  // The cause; may be nil.

	// Mended waits until the cause may be mended, and another request may be decided otherwise. It returns an error
	// when ctx ends, or if that can't be known. token returns a current token in the place of the request's; empty:
	// there is none. nil: it can't be known.
	Mended func(ctx context.Context, token func() Token) error
}

// Errorf returns an [*Error] whose reason is formatted as by [fmt.Errorf], %w included. A reason of more than
// [message.LongestReason] bytes is cut: an issuer may write any number of them.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Reason: message.Cut(err.Error(), message.LongestReason), Err: errors.Unwrap(err)}
}

// Error returns the kind and the reason.
func (e *Error) Error() string { return e.Kind.String() + ": " + e.Reason }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of err; Unavailable for an error that has none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Unavailable
}
