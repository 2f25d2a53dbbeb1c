package service

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// invalid is the error of a call that only the caller can correct.
type invalid struct{ error }

// Unwrap returns the reason.
func (e invalid) Unwrap() error { return e.error }

// Invalid returns an error that is final: only the caller can correct the call. Nothing of the volume may exist then,
// for the kubelet does not unpublish it.
func Invalid(err error) error { return invalid{err} }

// notFound is the error of a volume that does not exist.
type notFound struct{ error }

// Unwrap returns the reason.
func (e notFound) Unwrap() error { return e.error }

// code returns the CSI status code of an error; no other function chooses one. An error that is not known to be final
// is Unavailable: the kubelet tries again, and unpublishes the volume if its pod is deleted (kubernetes
// pkg/volume/csi/csi_client.go, isFinalError).
func code(err error) codes.Code {
	switch {
	case errors.As(err, new(invalid)):
		return codes.InvalidArgument
	case errors.As(err, new(notFound)):
		return codes.NotFound
	case errors.Is(err, store.ErrBusy):
		return codes.Aborted
	}
	if s, ok := grpcstatus.FromError(err); ok {
		return s.Code()
	}
	return codes.Unavailable
}

// answer gives every error its code, and logs it once. It is the server's interceptor.
func (p Plugin) answer(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	resp, err := handler(ctx, req)
	if err == nil {
		return resp, nil
	}
	c := code(err)
	if s, ok := grpcstatus.FromError(err); ok { // Of a method that is not implemented.
		return nil, s.Err()
	}
	text := message.Cut(err.Error(), message.Longest)
	p.Log.Warn("call not served", "method", info.FullMethod, "volume", volumeOf(req), "code", c.String(), "error", text)
	return nil, grpcstatus.Error(c, text)
}

// volumeOf returns the volume id of a request; empty if it has none that is valid.
func volumeOf(req any) string {
	if v, ok := req.(interface{ GetVolumeId() string }); ok && store.CheckID(v.GetVolumeId()) == nil {
		return v.GetVolumeId()
	}
	return ""
}
