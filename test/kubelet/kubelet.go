// Package kubelet plays the kubelet towards a CSI node plugin, over the plugin's real sockets and with real
// directories: it registers the plugin, and publishes and unpublishes inline volumes with the requests that the
// kubelet sends.
package kubelet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// callTimeout bounds one call, as in the kubelet (kubernetes pkg/volume/csi/csi_plugin.go, csiTimeout).
const callTimeout = 2 * time.Minute

// A Kubelet has a root directory and knows the sockets of drivers.
type Kubelet struct {
	Root string
}

// New is a kubelet on root, whose directories it makes with the kubelet's modes.
func New(root string) (*Kubelet, error) {
	for _, dir := range []string{"pods", "plugins", "plugins_registry"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o750); err != nil {
			return nil, fmt.Errorf("make the kubelet's root: %w", err)
		}
	}
	return &Kubelet{Root: root}, nil
}

// A Pod is the identity of a pod.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string
}

// A Volume is an inline CSI volume of a pod.
type Volume struct {
	Pod
	Name       string
	Attributes map[string]string
	FSGroup    string // Empty: none.
	Writable   bool   // readOnly: false.
	Secrets    map[string]string
}

// ID is the volume's handle (kubernetes pkg/volume/csi/csi_mounter.go, makeVolumeHandle).
func (v Volume) ID() string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.UID+v.Volume())))
}

// Volume is the volume's name in its pod, which defaults to "tls".
func (v Volume) Volume() string {
	if v.Name == "" {
		return "tls"
	}
	return v.Name
}

// Target is where a driver mounts the volume.
func (k *Kubelet) Target(v Volume) string {
	return filepath.Join(k.pod(v), "volumes", "kubernetes.io~csi", v.Volume(), "mount")
}

// Data is the file from which the kubelet knows how to unpublish the volume (kubernetes pkg/volume/csi/csi_mounter.go,
// SetUpAt).
func (k *Kubelet) Data(v Volume) string {
	return filepath.Join(filepath.Dir(k.Target(v)), "vol_data.json")
}

func (k *Kubelet) pod(v Volume) string { return filepath.Join(k.Root, "pods", v.UID) }

// A Driver is a connection to a node plugin's CSI socket. Close it after use.
type Driver struct {
	*grpc.ClientConn
	csi.IdentityClient
	csi.NodeClient
}

// Connect opens the socket.
func Connect(endpoint string) (Driver, error) {
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Driver{}, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	return Driver{conn, csi.NewIdentityClient(conn), csi.NewNodeClient(conn)}, nil
}

// DialEachCall connects to the socket anew for each call, as the kubelet does (kubernetes
// pkg/volume/csi/csi_client.go, newV1NodeClient). Its ClientConn is nil: there is nothing to close.
func DialEachCall(endpoint string) Driver {
	return Driver{nil, csi.NewIdentityClient(eachCall(endpoint)), csi.NewNodeClient(eachCall(endpoint))}
}

// An eachCall is the path of a socket, to which each call has a connection of its own.
type eachCall string

// Invoke implements [grpc.ClientConnInterface].
func (e eachCall) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	d, err := Connect(string(e))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements [grpc.ClientConnInterface]: a node plugin has no streams.
func (e eachCall) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "a CSI node plugin has no streams")
}

// Request is the call that publishes the volume.
func (k *Kubelet) Request(v Volume) *csi.NodePublishVolumeRequest {
	attributes := map[string]string{}
	for key, value := range v.Attributes {
		attributes[key] = value
	}
	for key, value := range map[string]string{ // podInfoOnMount
		"pod.name": v.Pod.Name, "pod.namespace": v.Namespace, "pod.uid": v.UID, "serviceAccount.name": v.ServiceAccount, "ephemeral": "true",
	} {
		attributes["csi.storage.k8s.io/"+key] = value
	}
	return &csi.NodePublishVolumeRequest{
		VolumeId:   v.ID(),
		TargetPath: k.Target(v),
		VolumeCapability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{VolumeMountGroup: v.FSGroup}},
		},
		Readonly:      !v.Writable,
		Secrets:       v.Secrets,
		VolumeContext: attributes,
	}
}

// Publish makes one call, as for a pod that starts, and returns the target. Its error is the driver's.
func (k *Kubelet) Publish(ctx context.Context, d Driver, v Volume) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	target := k.Target(v)
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", fmt.Errorf("make the target's parent: %w", err)
	}
	if _, err := os.Stat(k.Data(v)); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(k.Data(v), []byte("{}"), 0o600); err != nil {
			return "", err
		}
	}
	_, err := d.NodePublishVolume(ctx, k.Request(v))
	return target, err
}

// Mount publishes until it succeeds or ctx ends, with the kubelet's backoff (kubernetes
// pkg/util/goroutinemap/exponentialbackoff). Each failure is told to failed, as the kubelet tells it in an event of
// the pod.
func (k *Kubelet) Mount(ctx context.Context, d Driver, v Volume, failed func(error)) (string, error) {
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 122*time.Second) {
		target, err := k.Publish(ctx, d, v)
		if err == nil {
			return target, nil
		}
		if failed != nil {
			failed(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return target, err
		}
	}
}

// Unpublish makes one call, and removes the directories of a pod that is gone.
func (k *Kubelet) Unpublish(ctx context.Context, d Driver, v Volume) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := d.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID(), TargetPath: k.Target(v)})
	if err != nil {
		return err
	}
	if err := os.Remove(k.Data(v)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := filepath.Dir(k.Target(v)); dir != filepath.Join(k.Root, "pods"); dir = filepath.Dir(dir) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil // Another volume of the pod is there.
		}
	}
	return nil
}

// Stats makes the calls that the kubelet makes for each volume of a running pod every one to two minutes: whether the
// driver has statistics, and if so, which (kubernetes pkg/volume/csi/csi_metrics.go, GetMetrics;
// pkg/kubelet/server/stats).
func (k *Kubelet) Stats(ctx context.Context, d Driver, v Volume) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := d.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	for _, c := range resp.GetCapabilities() {
		if c.GetRpc().GetType() == csi.NodeServiceCapability_RPC_GET_VOLUME_STATS {
			_, err = d.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.ID(), VolumePath: k.Target(v)})
		}
	}
	return err
}

// Health is what the driver says is wrong with the volume.
func (k *Kubelet) Health(ctx context.Context, d Driver, v Volume) ([]*csi.VolumeHealth_VolumeHealthEntry, error) {
	resp, err := d.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: v.ID(), VolumePublishPath: k.Target(v)})
	return resp.GetVolumeHealth().GetHealthStatuses(), err
}

// Final reports whether the kubelet takes an error for the end of a volume that it has not mounted
// (kubernetes pkg/volume/csi/csi_client.go, isFinalError).
func Final(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}
