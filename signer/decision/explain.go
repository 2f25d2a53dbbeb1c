package decision

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/mayfly-csi/mayfly/signer"
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
	return signer.Errorf(kind, "%s: %w", action, Lasting(err))
}

// Lasting returns err without what differs between two tries that fail alike, the URL and the port of the connection,
// and says so if the connection failed. The kubelet counts Events only if their texts are equal.
func Lasting(err error) error {
	var failed *url.Error
	if !errors.As(err, &failed) {
		return err
	}
	var op *net.OpError
	switch {
	case errors.As(failed.Err, &op):
		lasting := *op
		lasting.Source = nil
		return fmt.Errorf("the API server did not answer: %w", &lasting)
	case errors.Is(failed.Err, io.EOF):
		return fmt.Errorf("the API server did not answer: %w", failed.Err)
	}
	return failed.Err
}
