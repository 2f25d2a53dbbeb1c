package authority

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/signer/ca"
)

// A Reader has the CAs as they are now.
type Reader struct {
	Names
	Secrets client.Reader // From a cache: [Names.Cache].
}

// Get returns the CA that signs for a signer now. If there is none, or none that is good, the error says which Secret
// is to be seen to.
func (r Reader) Get(ctx context.Context, signer string) (ca.CA, error) {
	name, ok := r.Secret(signer)
	if !ok {
		return ca.CA{}, fmt.Errorf("signer %s has no CA here: there are %s/%s, %s/%s<namespace>.<name> and %s/%s<name>",
			signer, r.Domain, ownSigner, r.Domain, issuer, r.Domain, clusterIssuer)
	}
	secret := &corev1.Secret{}
	err := r.Secrets.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return ca.CA{}, fmt.Errorf("there is no CA for signer %s: %s: %w", signer, r.remedy(name), err)
	case err != nil:
		return ca.CA{}, fmt.Errorf("read Secret %s/%s: %w", r.Namespace, name, err)
	}
	c, err := parse(secret)
	if err == nil {
		err = c.ValidAt(time.Now())
	}
	if err != nil {
		return ca.CA{}, r.broken(name, err)
	}
	return c, nil
}

// remedy returns what is to be done where there is no Secret.
func (r Reader) remedy(secret string) string {
	if secret == r.Own {
		return fmt.Sprintf("mayfly-controller's leader makes Secret %s/%s, see its log", r.Namespace, secret)
	}
	return fmt.Sprintf("make a Certificate of cert-manager in namespace %s with isCA: true and secretName: %s",
		r.Namespace, secret)
}

// Broken is that a Secret is there and its CA can't be used. Trying again does not help.
type Broken struct {
	Secret string // With its namespace.
	Remedy string
	Err    error
}

// Error says which Secret it is, what is wrong and what to do.
func (b *Broken) Error() string { return fmt.Sprintf("Secret %s: %v: %s", b.Secret, b.Err, b.Remedy) }

// Unwrap returns what is wrong.
func (b *Broken) Unwrap() error { return b.Err }

func (n Names) broken(secret string, err error) error {
	b := &Broken{Secret: n.Namespace + "/" + secret, Err: err, Remedy: "see to its Certificate of cert-manager"}
	if secret == n.Own {
		b.Remedy = "mend it, or delete it to have a new CA made"
	}
	return b
}

// parse reads the CA that signs. Both kinds have it under the keys of a TLS Secret.
func parse(secret *corev1.Secret) (ca.CA, error) {
	return ca.Parse(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], secret.Data[rootsKey])
}
