// Package authority is the CAs that mayfly-controller signs with: its own, which it makes and rotates, and those that
// cert-manager keeps.
//
// Each CA is a Secret of the controller's namespace, and its roots are a ClusterTrustBundle. Every replica reads the
// Secrets with a [Reader]; the leader alone runs the [Keeper], which writes. There is no other state: what is to be
// done next follows from the Secret, the bundle and the time.
package authority

import (
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Names are which Secret is whose CA.
type Names struct {
	Namespace string // The controller's own: CAs are in no other.
	Own       string // The Secret of the controller's own CA.
	Domain    string // Of the signers: csi.mayfly.dev.
}

const (
	ownSigner     = "volume" // The path of the signer that the controller's own CA stands for.
	issuer        = "issuer."
	clusterIssuer = "clusterissuer."
)

// Signer returns the signer whose CA is in a Secret; ok is false for Secrets that are none's.
func (n Names) Signer(secret string) (signer string, ok bool) {
	switch {
	case secret == n.Own:
		return n.Domain + "/" + ownSigner, true
	case isIssuer(secret):
		return n.Domain + "/" + secret, true
	}
	return "", false
}

// Secret returns the Secret with a signer's CA; ok is false for signers that are not the controller's.
func (n Names) Secret(signer string) (secret string, ok bool) {
	path, ok := strings.CutPrefix(signer, n.Domain+"/")
	switch {
	case ok && path == ownSigner:
		return n.Own, true
	case ok && path != n.Own && isIssuer(path):
		return path, true
	}
	return "", false
}

// isIssuer reports whether a name is clusterissuer.<name> or issuer.<namespace>.<name>. A namespace's name has no dots.
func isIssuer(name string) bool {
	if of, ok := strings.CutPrefix(name, clusterIssuer); ok {
		return of != ""
	}
	of, ok := strings.CutPrefix(name, issuer)
	namespace, of, _ := strings.Cut(of, ".")
	return ok && namespace != "" && of != ""
}

// bundleName returns the name of the ClusterTrustBundle of a signer (k8s.io/kubernetes pkg/apis/core/validation,
// ValidateClusterTrustBundleName).
func bundleName(signer string) string { return strings.ReplaceAll(signer, "/", ":") + ":ca" }

// Cache returns what a manager's cache needs to hold for a [Reader] and a [Keeper]: the CAs' Secrets and their bundles.
// Of other objects of these kinds it has nothing but their metadata.
func (n Names) Cache() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&corev1.Secret{}: {
			Namespaces: map[string]cache.Config{n.Namespace: {
				FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)),
			}},
			Transform: n.trim,
		},
		&certificatesv1.ClusterTrustBundle{}: {Transform: n.trim},
	}
}

// trim leaves of an object what matters here.
func (n Names) trim(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Secret:
		o.ManagedFields = nil
		if _, ok := n.Signer(o.Name); !ok {
			o.Data, o.Annotations = nil, nil
		}
	case *certificatesv1.ClusterTrustBundle:
		if _, ok := n.Secret(o.Spec.SignerName); !ok {
			o.Spec.TrustBundle, o.Annotations, o.ManagedFields = "", nil, nil
		}
	}
	return object, nil
}
