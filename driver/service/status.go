package service

import (
	"context"
	"errors"
	"log/slog"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
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
	of := p.attr(req) // An unpublish call removes the volume.
	resp, err := handler(ctx, req)
	if err == nil {
		return resp, nil
	}
	c := code(err)
	if s, ok := grpcstatus.FromError(err); ok { // Of a method that is not implemented.
		return nil, s.Err()
	}
	if c == codes.InvalidArgument && info.FullMethod == csi.Node_NodePublishVolume_FullMethodName {
		p.Metrics.invalid.Inc()
	}
	text := message.Cut(err.Error(), message.Longest)
	p.Log.Warn("call not served", of, "method", info.FullMethod, "code", c.String(), "error", text)
	return nil, grpcstatus.Error(c, text)
}

// attr returns the attributes of a request's volume in log lines.
func (p Plugin) attr(req any) slog.Attr {
	var id string
	if r, ok := req.(interface{ GetVolumeId() string }); ok && store.CheckID(r.GetVolumeId()) == nil {
		id = r.GetVolumeId()
	}
	if v := p.Volumes.Find(id); v != nil && v.Known() {
		return v.Attr()
	}
	var asked volume.Asked
	if r, ok := req.(interface{ GetVolumeContext() map[string]string }); ok {
		asked.Attributes = r.GetVolumeContext()
	}
	return store.Attr(id, asked)
}
