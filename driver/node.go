package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// node is the CSI Node service. A call for a volume that another call is at work on is aborted: the kubelet's calls overlap after a time-out.
type node struct {
	csi.UnimplementedNodeServer
	*Driver
	name  string
	calls *callSet
}

// NodePublishVolume implements the CSI Node service.
func (n *node) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	asked, err := n.asked(req)
	if err != nil {
		return nil, err
	}
	if !n.calls.begin(asked.ID) {
		return nil, errBusy
	}
	defer n.calls.end(asked.ID)
	h := n.hold(asked.ID)
	n.takeToken(h, req)
	return &csi.NodePublishVolumeResponse{}, n.publish(ctx, h, asked)
}

// NodeUnpublishVolume implements the CSI Node service.
func (n *node) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	id, target := req.GetVolumeId(), req.GetTargetPath()
	if err := cmp.Or(volumeID(id), n.target(target)); err != nil {
		return nil, badCall{err}
	}
	if !n.calls.begin(id) {
		return nil, errBusy
	}
	defer n.calls.end(id)
	return &csi.NodeUnpublishVolumeResponse{}, n.unpublish(ctx, id, target)
}

// NodeGetVolumeStats implements the CSI Node service.
func (n *node) NodeGetVolumeStats(_ context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := volumeID(req.GetVolumeId()); err != nil {
		return nil, badCall{err}
	}
	if req.GetVolumePath() == "" {
		return nil, badCall{errors.New("volume_path is missing")}
	}
	h := n.find(req.GetVolumeId())
	var stat unix.Statfs_t
	if h == nil || unix.Statfs(req.GetVolumePath(), &stat) != nil {
		return nil, missing{fmt.Errorf("volume %s is not published at %s", req.GetVolumeId(), req.GetVolumePath())}
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: usage(stat)}, nil
}

func usage(stat unix.Statfs_t) []*csi.VolumeUsage {
	block := stat.Bsize
	return []*csi.VolumeUsage{{
		Unit:      csi.VolumeUsage_BYTES,
		Total:     int64(stat.Blocks) * block,
		Available: int64(stat.Bavail) * block,
		Used:      int64(stat.Blocks-stat.Bfree) * block,
	}, {
		Unit:      csi.VolumeUsage_INODES,
		Total:     int64(stat.Files),
		Available: int64(stat.Ffree),
		Used:      int64(stat.Files - stat.Ffree),
	}}
}

// NodeGetVolumeHealth implements the CSI Node service: it says what is wrong with the pair, until when it is valid, and what its renewal met.
// It took the place of the volume condition of NodeGetVolumeStats in CSI 1.13 (csi.proto, VolumeHealth; kubernetes pkg/volume/csi/csi_client.go).
func (n *node) NodeGetVolumeHealth(_ context.Context, req *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	if err := volumeID(req.GetVolumeId()); err != nil {
		return nil, badCall{err}
	}
	h := n.find(req.GetVolumeId())
	if h == nil {
		return nil, missing{fmt.Errorf("volume %s is not published here", req.GetVolumeId())}
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: &csi.VolumeHealth{
		VolumeId: req.GetVolumeId(), HealthStatuses: h.health(now()),
	}}, nil
}

// health is what is wrong at t; nothing for a valid pair whose last attempt went well.
func (h *held) health(t time.Time) []*csi.VolumeHealth_VolumeHealthEntry {
	valid := h.validAt(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	entry := &csi.VolumeHealth_VolumeHealthEntry{Message: "no certificate yet"}
	if h.awaits != nil {
		entry.Message += ": " + h.awaits.Error()
	}
	if h.pair != nil {
		entry.Message = fmt.Sprintf("certificate %s is valid from %s to %s", h.pair.serial, stamp(h.pair.notBefore), stamp(h.pair.notAfter))
	}
	if f := h.record.Failure; f != nil {
		entry.Message += fmt.Sprintf("; %s, last at %s: %s", times(f.Count), stamp(f.At), f.Reason)
	}
	switch {
	case !valid:
		entry.Status, entry.Reason = csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid"
	case h.record.Failure != nil:
		entry.Status, entry.Reason = csi.VolumeHealthErrorType_DEGRADED, "CertificateNotRenewed"
	default:
		return nil
	}
	return []*csi.VolumeHealth_VolumeHealthEntry{entry}
}

// stamp is a time as all messages write it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// NodeGetCapabilities implements the CSI Node service.
func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

// NodeGetInfo implements the CSI Node service.
func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.NodeName}, nil
}

// asked is what a call asks for, if it is a call that an inline volume makes.
func (n *node) asked(req *csi.NodePublishVolumeRequest) (volume.Asked, error) {
	capability := req.GetVolumeCapability()
	err := cmp.Or(volumeID(req.GetVolumeId()), n.target(req.GetTargetPath()), fit(req), n.podOf(req))
	if err != nil {
		return volume.Asked{}, badCall{err}
	}
	attributes := maps.Clone(req.GetVolumeContext())
	secrets := maps.Clone(req.GetSecrets())
	for _, all := range []map[string]string{attributes, secrets} {
		delete(all, volume.Tokens)
	}
	return volume.Asked{
		Driver:     n.name,
		ID:         req.GetVolumeId(),
		Target:     req.GetTargetPath(),
		Attributes: attributes,
		Group:      capability.GetMount().GetVolumeMountGroup(),
		MountFlags: capability.GetMount().GetMountFlags(),
		Secrets:    len(secrets) > 0,
		Password:   secrets[volume.PasswordKey],
	}, nil
}

func fit(req *csi.NodePublishVolumeRequest) error {
	switch {
	case req.GetVolumeCapability() == nil:
		return errors.New("volume_capability is missing")
	case req.GetVolumeCapability().GetBlock() != nil:
		return errors.New("volume_capability is a block device: a certificate volume is a directory")
	case !req.GetReadonly():
		return errors.New("readOnly is not true: set readOnly: true in the pod's csi volume, for nobody but the driver writes certificates")
	}
	return nil
}

// fileName is what an id must be. The kubelet's are csi- and 64 hex digits.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// volumeID demands an id that is one file name.
func volumeID(id string) error {
	if !fileName.MatchString(id) {
		return fmt.Errorf("volume_id %q is not a plain file name", id)
	}
	return nil
}

// target demands a path in a pod's directory that the driver may make and remove. It exists only if it is a directory.
func (n *node) target(target string) error {
	pods := filepath.Join(n.KubeletRoot, "pods")
	switch {
	case target == "":
		return errors.New("target_path is missing")
	case !filepath.IsAbs(target) || filepath.Clean(target) != target || target == "/":
		return fmt.Errorf("target_path %q is not a clean absolute path", target)
	case n.KubeletRoot != "" && !strings.HasPrefix(target, pods+"/"):
		return fmt.Errorf("target_path %s is not under %s, where the kubelet keeps its pods", target, pods)
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

func kindOfFile(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode.IsRegular():
		return "file"
	}
	return "special file"
}

// podOf demands that the pod's UID is that of the target's path: where podInfoOnMount is off, the UID would be the pod's own words.
func (n *node) podOf(req *csi.NodePublishVolumeRequest) error {
	uid := req.GetVolumeContext()["csi.storage.k8s.io/pod.uid"]
	if n.KubeletRoot == "" || uid == "" {
		return nil
	}
	if !strings.HasPrefix(req.GetTargetPath(), filepath.Join(n.KubeletRoot, "pods", uid)+"/") {
		return fmt.Errorf("pod UID %q is not that of the target_path %s", uid, req.GetTargetPath())
	}
	return nil
}
