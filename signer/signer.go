// Package signer defines the interface between the node plugin and the backends that sign its certificates.
//
// A backend implements [Signer]. This package states what a backend may answer, and what its errors mean; package
// signertest tests it.
package signer

import (
	"context"
	"strings"
	"time"
)

// A Signer signs one certificate request at a time; calls for different attempts run concurrently.
//
// Sign waits until the request is decided or ctx ends. It is idempotent by [Request.Attempt]: called again with an
// equal request, after a time-out or in another process, it continues what the first call began. Every error that it
// returns is an [*Error].
type Signer interface {
	Sign(ctx context.Context, req Request) (Issued, error)
}

// A Forgetter is a Signer that keeps an object for each attempt until Forget is called.
//
// Forget removes the attempt's object. It succeeds if there is none, and never removes another attempt's.
type Forgetter interface {
	Forget(ctx context.Context, attempt Attempt) error
}

// A Rememberer is a Signer that keeps an object for each attempt for a while, which says what became of it.
//
// Refused returns the error with which Sign refused the attempt, in another process too. It is nil if nothing says any
// more that the attempt was refused, and of another kind than [Kind.Ends] has if that is not known.
type Rememberer interface {
	Refused(ctx context.Context, attempt Attempt) error
}

// A Request is what a node plugin asks to be signed, for one volume of one pod.
type Request struct {
	Attempt     Attempt
	Volume      string // The CSI volume's id. It identifies the volume in the pod's spec.
	Issuer      Issuer
	Annotations map[string]string // From the pod's author, for the signer.
	CSR         []byte            // PKCS#10, DER.
	Duration    time.Duration     // The requested lifetime; a signer may give another.
	Usages      []Usage
	IsCA        bool

	Token Token // Of the pod's service account. Empty: the request is made as the node plugin.
}

// A Token is a secret. Its methods hide it from logs.
type Token string

// String hides the token.
func (t Token) String() string {
	if t == "" {
		return ""
	}
	return "(a token)"
}

// GoString hides the token.
func (t Token) GoString() string { return t.String() }

// An Attempt identifies one try to get a certificate, across calls and processes.
type Attempt struct {
	ID  string // Random, unique per try, made of [a-z0-9]; at most 32 characters.
	Pod Pod    // The pod that gets the certificate.
}

// ObjectName returns the name of the attempt's object in the API server: the pod's name, for people who read a list,
// and the attempt's id, which makes it unique.
func (a Attempt) ObjectName() string {
	const longest = 253 // A DNS subdomain (k8s.io/apimachinery pkg/util/validation).
	prefix := a.Pod.Name
	prefix = prefix[:min(len(prefix), longest-1-len(a.ID))]
	return strings.TrimRight(prefix, "-.") + "-" + a.ID
}

// A Pod identifies the pod that gets the certificate, as the kubelet does.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string

	Node string // Empty: not known.
}

// An Issuer names the issuer, in cert-manager's terms.
type Issuer struct {
	Name, Kind, Group string
}

// Issued is a signer's answer: PEM that nothing has checked.
type Issued struct {
	Chain []byte // The leaf first.
	CA    []byte // The issuer's CA certificates; may be empty.
}
