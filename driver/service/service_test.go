package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/service"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A publisher answers all calls with an error, and keeps the last one.
type publisher struct {
	err   error
	asked volume.Asked
	token issue.Token
}

func (p *publisher) Publish(_ context.Context, asked volume.Asked, token issue.Token) error {
	p.asked, p.token = asked, token
	return p.err
}

func (p *publisher) Unpublish(context.Context, string, string) error { return p.err }

// client returns a client of the services.
func client(t *testing.T, p service.Publisher) csi.NodeClient {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	volumes, err := store.New(t.TempDir(), time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := service.Plugin{
		Name: "csi.mayfly.dev", Dialect: spec.Mayfly, Publisher: p, Volumes: volumes, Metrics: service.NewMetrics(nil), Log: log,
	}.NewServer()
	listener := bufconn.Listen(1 << 10)
	go server.Serve(listener) //nolint:errcheck // It ends with the test.
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return csi.NewNodeClient(connection)
}

func request() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: "csi-1", TargetPath: "/pods/absent", Readonly: true,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{}},
		VolumeContext:    map[string]string{"a": "b"},
		Secrets: map[string]string{
			spec.Tokens: `{"":{"token":"SECRET","expirationTimestamp":"2026-01-02T03:04:05Z"}}`, volume.PasswordKey: "changeit",
		},
	}
}

// What a publisher returns decides whether the kubelet tries again.
func TestCodes(t *testing.T) {
	for _, row := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{errors.New("the signer is away"), codes.Unavailable},
		{service.Invalid(errors.New("no such attribute")), codes.InvalidArgument},
		{fmt.Errorf("parse: %w", service.Invalid(errors.New("no such attribute"))), codes.InvalidArgument},
		{fmt.Errorf("%w: it goes first", store.ErrBusy), codes.Aborted},
		{context.Canceled, codes.Unavailable},
	} {
		node := client(t, &publisher{err: row.err})
		_, published := node.NodePublishVolume(t.Context(), request())
		_, unpublished := node.NodeUnpublishVolume(t.Context(),
			&csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: "/pods/absent"})
		for _, err := range []error{published, unpublished} {
			if got := status.Convert(err); got.Code() != row.want || row.err != nil && got.Message() != row.err.Error() {
				t.Errorf("%v: %v, want %s", row.err, err, row.want)
			}
		}
	}
}

// What the kubelet sends is handed on, with the secrets apart.
func TestWhatIsAsked(t *testing.T) {
	p := &publisher{}
	if _, err := client(t, p).NodePublishVolume(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	if a := p.asked; a.Driver != "csi.mayfly.dev" || a.Dialect != spec.Mayfly || a.ID != "csi-1" || a.Target != "/pods/absent" ||
		len(a.Attributes) != 1 || !a.Secrets || a.Password != "changeit" {
		t.Errorf("asked: %+v", a)
	}
	if p.token.Value != "SECRET" || p.token.ExpiresAt.IsZero() {
		t.Errorf("token: %+v", p.token)
	}
}

func TestAVolumeThatIsNotThereHasNoHealth(t *testing.T) {
	_, err := client(t, &publisher{}).NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "csi-1"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}
