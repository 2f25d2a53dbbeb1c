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

// Explain is the API server's answer in the terms of the contract.
func Explain(err error, doing string) *signer.Error {
	kind := signer.Unavailable
	switch {
	case apierrors.IsForbidden(err):
		kind = signer.Denied // RBAC, an admission policy, or a namespace that is going.
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		kind = signer.Invalid
	}
	return signer.Errorf(kind, "%s: %w", doing, plain(err))
}

// plain is err without the URL, which is that of the object that the message names, and with words for a connection that failed.
func plain(err error) error {
	var failed *url.Error
	if !errors.As(err, &failed) {
		return err
	}
	if errors.As(failed.Err, new(*net.OpError)) || errors.Is(failed.Err, io.EOF) {
		return fmt.Errorf("the API server did not answer: %w", failed.Err)
	}
	return failed.Err
}
