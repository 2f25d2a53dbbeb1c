package driver

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver/store"
)

// badCall is an error that the caller alone can mend. Nothing of the volume exists then.
type badCall struct{ error }

// Unwrap is the reason.
func (e badCall) Unwrap() error { return e.error }

// missing is the error of a volume that is not there.
type missing struct{ error }

// Unwrap is the reason.
func (e missing) Unwrap() error { return e.error }

// code is the one place where an error becomes a CSI status code. What is not known to be final is Unavailable:
// the kubelet tries again, and unpublishes the volume if its pod goes (kubernetes pkg/volume/csi/csi_client.go, isFinalError).
func code(err error) codes.Code {
	switch {
	case errors.As(err, new(badCall)):
		return codes.InvalidArgument
	case errors.As(err, new(missing)):
		return codes.NotFound
	case errors.Is(err, store.ErrBusy):
		return codes.Aborted
	}
	if s, ok := grpcstatus.FromError(err); ok {
		return s.Code()
	}
	return codes.Unavailable
}

// answer gives every error its code, and logs it once.
func (d *Driver) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err == nil {
		return resp, nil
	}
	c := code(err)
	if s, ok := grpcstatus.FromError(err); ok { // Of a method that is not implemented.
		return nil, s.Err()
	}
	d.Log.Warn("call not served", "method", info.FullMethod, "volume", volumeOf(req), "code", c.String(), "error", err)
	return nil, grpcstatus.Error(c, err.Error())
}

// volumeOf returns the id of the volume that a request is about.
func volumeOf(req any) string {
	if v, ok := req.(interface{ GetVolumeId() string }); ok {
		return v.GetVolumeId()
	}
	return ""
}
