// Package signer is the contract between the node plugin and whoever signs its certificates.
//
// A backend implements [Signer]. What a backend may answer, and how the node plugin understands it, is stated here
// and held by the suite in signertest.
package signer

import (
	"context"
	"strings"
	"time"
)

// A Signer signs one certificate request at a time; calls for different attempts run concurrently.
//
// Sign waits until the request is decided or ctx ends. It is idempotent by [Request.Attempt]: called again with an equal
// request, after a time-out or in another process, it finds what the first call began instead of beginning a second time.
// Every error that it returns is an [*Error].
type Signer interface {
	Sign(ctx context.Context, req Request) (Issued, error)
}

// A Forgetter is a Signer that keeps an object for each attempt until it is told to forget it.
//
// Forget removes what Sign left behind for the attempt. It succeeds if there is nothing to remove,
// and never removes an object that is not the attempt's own.
type Forgetter interface {
	Forget(ctx context.Context, attempt Attempt) error
}

// A Request is what a node plugin asks to be signed, for one volume of one pod.
type Request struct {
	Attempt     Attempt
	Volume      string // The CSI volume's id, by which the pod's spec tells which of its volumes asks.
	Issuer      Issuer
	Annotations map[string]string // What the pod's author tells the signer besides.
	CSR         []byte            // PKCS#10, DER.
	Duration    time.Duration     // The lifetime that is wanted; a signer may give another.
	Usages      []Usage
	IsCA        bool

	Token Token // Of the pod's service account, to ask with. Empty: the signer asks as itself.
}

// A Token is a secret that no log shows.
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

// An Attempt names one try to get a certificate: it is all that is needed to find the try again.
type Attempt struct {
	ID  string // Random, unique per try, made of [a-z0-9]; at most 32 characters.
	Pod Pod    // For whom.
}

// ObjectName is the name of the attempt's object in the API server: the pod's name for who reads a list, and the attempt's id, which makes it unique.
func (a Attempt) ObjectName() string {
	const longest = 253 // A DNS subdomain (k8s.io/apimachinery pkg/util/validation).
	prefix := a.Pod.Name
	prefix = prefix[:min(len(prefix), longest-1-len(a.ID))]
	return strings.TrimRight(prefix, "-.") + "-" + a.ID
}

// A Pod is the identity of the pod that asks, as the kubelet told it.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string
}

// An Issuer names who is to sign, in cert-manager's terms.
type Issuer struct {
	Name, Kind, Group string
}

// Issued is a signer's answer, unchecked: PEM as it came.
type Issued struct {
	Chain []byte // The leaf first.
	CA    []byte // The issuer's CA certificates; may be empty.
}
