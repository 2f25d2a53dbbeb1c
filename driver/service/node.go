package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// node is the CSI Node service.
type node struct {
	csi.UnimplementedNodeServer
	Plugin
}

// NodePublishVolume implements the CSI Node service.
func (n node) NodePublishVolume(
	ctx context.Context, req *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	asked, err := n.asked(req)
	if err != nil {
		return nil, err
	}
	token, err := tokenOf(req)
	if err != nil { // The call may be for a volume that needs none now.
		n.Log.Warn("the token of a call can't be parsed", store.Attr(asked.ID, asked), "error", err)
	}
	return &csi.NodePublishVolumeResponse{}, n.Publisher.Publish(ctx, asked, token)
}

// NodeUnpublishVolume implements the CSI Node service.
func (n node) NodeUnpublishVolume(
	ctx context.Context, req *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	id, target := req.GetVolumeId(), req.GetTargetPath()
	if err := cmp.Or(store.CheckID(id), n.checkTarget(target)); err != nil {
		return nil, Invalid(err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, n.Publisher.Unpublish(ctx, id, target)
}

// NodeGetVolumeHealth implements the CSI Node service: it returns what is wrong with the pair, until when it is valid,
// and why its renewal failed. It replaced the volume condition of NodeGetVolumeStats in CSI 1.13 (csi.proto,
// VolumeHealth; kubernetes pkg/volume/csi/csi_client.go).
func (n node) NodeGetVolumeHealth(
	_ context.Context, req *csi.NodeGetVolumeHealthRequest,
) (*csi.NodeGetVolumeHealthResponse, error) {
	if err := store.CheckID(req.GetVolumeId()); err != nil {
		return nil, Invalid(err)
	}
	v := n.Volumes.Find(req.GetVolumeId())
	if v == nil {
		return nil, notFound{fmt.Errorf("volume %s is not published here", req.GetVolumeId())}
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: &csi.VolumeHealth{
		VolumeId: req.GetVolumeId(), HealthStatuses: n.health(v, n.Clocks.Now()),
	}}, nil
}

// NodeGetCapabilities implements the CSI Node service. Volume statistics are not among them: the kubelet would ask for
// those of a tmpfs of fixed size every minute (kubernetes pkg/kubelet/server/stats).
func (n node) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

// NodeGetInfo implements the CSI Node service.
func (n node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.NodeName}, nil
}

// asked returns what a call asks for, or an error if the kubelet makes no such call for an inline volume.
func (n node) asked(req *csi.NodePublishVolumeRequest) (volume.Asked, error) {
	capability := req.GetVolumeCapability()
	err := cmp.Or(
		store.CheckID(req.GetVolumeId()), n.checkTarget(req.GetTargetPath()), checkCall(req), n.checkPod(req))
	if err != nil {
		return volume.Asked{}, Invalid(err)
	}
	attributes := maps.Clone(req.GetVolumeContext())
	secrets := maps.Clone(req.GetSecrets())
	for _, all := range []map[string]string{attributes, secrets} {
		delete(all, spec.Tokens)
	}
	return volume.Asked{
		Asked:      spec.Asked{Driver: n.Name, Dialect: n.Dialect, Attributes: attributes},
		ID:         req.GetVolumeId(),
		Target:     req.GetTargetPath(),
		Group:      capability.GetMount().GetVolumeMountGroup(),
		MountFlags: capability.GetMount().GetMountFlags(),
		Secrets:    len(secrets) > 0,
		Password:   secrets[volume.PasswordKey],
	}, nil
}

// checkCall returns an error for a call that is not one for an inline volume.
func checkCall(req *csi.NodePublishVolumeRequest) error {
	switch {
	case req.GetVolumeCapability() == nil:
		return errors.New("volume_capability is missing")
	case req.GetVolumeCapability().GetBlock() != nil:
		return errors.New("volume_capability is a block device: a certificate volume is a directory")
	case !req.GetReadonly():
		return errors.New("readOnly is not true: set readOnly: true in the pod's csi volume, " +
			"for nobody but the driver writes certificates")
	}
	return nil
}

// maxTarget is the greatest size of a path in bytes (PATH_MAX without its zero, linux/limits.h).
const maxTarget = 4095

// checkTarget returns an error for a path that the kubelet does not give to an inline volume of a pod, or that exists
// and is no directory: the driver makes and removes it.
func (n node) checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("target_path is missing")
	case len(target) > maxTarget:
		return fmt.Errorf("target_path has %d bytes: at most %d", len(target), maxTarget)
	case !filepath.IsAbs(target) || filepath.Clean(target) != target || target == "/":
		return fmt.Errorf("target_path %q is not a clean absolute path", target)
	}
	if err := n.checkPlace(target); err != nil {
		return err
	}
	info, err := os.Lstat(target)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("target_path %s is a %s, not a directory", target, kindOfFile(info.Mode()))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("target_path: %w", err)
	}
	return nil
}

// checkPlace returns an error for a path that is not that of an inline volume, or that leads elsewhere: what the driver
// mounts and removes there would be another's.
func (n node) checkPlace(target string) error {
	if n.KubeletRoot == "" {
		return nil
	}
	if n.podOf(target) == "" {
		const format = "target_path %s is not in %s/<UID>/volumes/kubernetes.io~csi/<volume>, " +
			"where the kubelet has them"
		return fmt.Errorf(format, target, n.podsDir())
	}
	for dir := filepath.Dir(target); dir != n.podsDir(); dir = filepath.Dir(dir) { // The operator may have links above.
		if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
			return fmt.Errorf("target_path %s leads through %s, a %s", target, dir, kindOfFile(info.Mode()))
		}
	}
	return nil
}

// podsDir returns where the kubelet keeps its pods.
func (n node) podsDir() string { return filepath.Join(n.KubeletRoot, "pods") }

// podOf returns the pod's UID in the clean path of an inline volume (kubernetes pkg/volume/csi/csi_mounter.go,
// getTargetPath); empty for another path.
func (n node) podOf(target string) (uid string) {
	rest, _ := strings.CutPrefix(target, n.podsDir()+"/")
	parts := strings.Split(rest, "/")
	if len(parts) != 5 || parts[1] != "volumes" || parts[2] != "kubernetes.io~csi" {
		return ""
	}
	return parts[0]
}

// kindOfFile returns a file's type in words.
func kindOfFile(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode.IsRegular():
		return "file"
	}
	return "special file"
}

// checkPod returns an error if the pod's UID is not that of the target's path: where podInfoOnMount is off, the pod's
// author could set it.
func (n node) checkPod(req *csi.NodePublishVolumeRequest) error {
	uid := req.GetVolumeContext()["csi.storage.k8s.io/pod.uid"]
	if n.KubeletRoot == "" || uid == "" {
		return nil
	}
	if n.podOf(req.GetTargetPath()) != uid {
		return fmt.Errorf("pod UID %.64q is not that of the target_path %s", uid, req.GetTargetPath())
	}
	return nil
}
