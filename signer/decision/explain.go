package decision

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// Explain returns an error of the API server as an error of a signer. action describes the call.
func Explain(err error, action string) *signer.Error {
	kind := signer.Unavailable
	switch {
	case apierrors.IsForbidden(err):
		kind = signer.Denied // RBAC, an admission policy, or a namespace that is being deleted.
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		kind = signer.Invalid
	}
	return signer.Errorf(kind, "%s: %w", action, message.Stable(err))
}
