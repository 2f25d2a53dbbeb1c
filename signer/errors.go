package signer

import (
	"errors"
	"fmt"
)

// Kind says what an error of a signer means for the one who asked.
type Kind int

const (
	// Unavailable is that the signer could not be asked, or did not answer. The attempt is still good.
	Unavailable Kind = iota
	// NotYet is that the signer has the request and has not decided. The attempt is still good.
	NotYet
	// Denied is that someone with the right to do so refused the request. The attempt is over.
	Denied
	// Invalid is that the signer can't understand or honour the request as it is. The attempt is over.
	Invalid
	// Failed is that the signer tried and gave up, or the request was taken away. The attempt is over.
	Failed
)

// String is the kind in the words of an error message.
func (k Kind) String() string {
	return [...]string{"signer unavailable", "not signed yet", "request denied", "request invalid", "signing failed"}[k]
}

// Ends reports whether an attempt that met this kind of error is over: the next try is a new one.
func (k Kind) Ends() bool { return k == Denied || k == Invalid || k == Failed }

// An Error says why there is no certificate.
type Error struct {
	Kind   Kind
	Reason string // For the pod's author: what was asked of whom, and what was the answer. No secrets.
	Err    error  // The cause, where there is one beyond the reason.
}

// Errorf is an [*Error] whose reason is formatted as by [fmt.Errorf], %w included.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Reason: err.Error(), Err: errors.Unwrap(err)}
}

// Error is the kind and the reason.
func (e *Error) Error() string { return e.Kind.String() + ": " + e.Reason }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of err, Unavailable for an error that is not of a signer.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Unavailable
}
