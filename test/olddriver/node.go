package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"
)

// node is the CSI Node service, as in csi-lib (driver/nodeserver.go, manager/manager.go).
type node struct {
	csi.UnimplementedNodeServer
	id       string
	dir      string // A tmpfs for all volumes: a directory each, with metadata.json and data.
	ctx      context.Context
	renewals *errgroup.Group

	mu      sync.Mutex
	managed map[string]context.CancelFunc
}

// openNode mounts the tmpfs unless a process before has, and manages the volumes in it until ctx ends.
func openNode(ctx context.Context, renewals *errgroup.Group, dir, id string) (*node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if mounted, err := isMount(dir); err != nil || !mounted {
		if err = errors.Join(err, unix.Mount("tmpfs", dir, "tmpfs", 0, "")); err != nil {
			return nil, fmt.Errorf("mount the data directory: %w", err)
		}
	}
	n := &node{id: id, dir: dir, ctx: ctx, renewals: renewals, managed: map[string]context.CancelFunc{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	for _, e := range entries {
		if err := n.manage(e.Name()); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func isMount(path string) (bool, error) { return new(mountutils.Mounter).IsMountPoint(path) }

// manage writes a pair for the volume unless this process has, and renews it at two thirds of its life.
func (n *node) manage(volume string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.managed[volume]; ok {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(n.dir, volume, "metadata.json"))
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	var attributes map[string]string
	if err := json.Unmarshal(text, &attributes); err != nil {
		return fmt.Errorf("parse metadata: %w", err)
	}
	next, err := issue(n.data(volume), attributes)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(n.ctx)
	n.managed[volume] = cancel
	n.renewals.Go(func() error {
		for err == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(next)):
				next, err = n.renew(ctx, volume, attributes)
			}
		}
		return err
	})
	return nil
}

// renew writes another pair for the volume unless ctx has ended: then the volume may be gone.
func (n *node) renew(ctx context.Context, volume string, attributes map[string]string) (next time.Time, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ctx.Err() != nil {
		return time.Time{}, nil
	}
	return issue(n.data(volume), attributes)
}

// unmanage ends the volume's renewals.
func (n *node) unmanage(volume string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cancel, ok := n.managed[volume]; ok {
		cancel()
		delete(n.managed, volume)
	}
}

func (n *node) data(volume string) string { return filepath.Join(n.dir, volume, "data") }

// NodePublishVolume implements the CSI Node service. It leaves a target as it is on which anything is mounted.
func (n *node) NodePublishVolume(_ context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	metadata, err := json.Marshal(req.GetVolumeContext())
	if err != nil {
		return nil, err
	}
	dir, target := filepath.Join(n.dir, req.GetVolumeId()), req.GetTargetPath()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "metadata.json"), metadata, 0o600); err != nil {
		return nil, err
	}
	if err := n.manage(req.GetVolumeId()); err != nil {
		return nil, err
	}
	mounted, err := isMount(target)
	if errors.Is(err, fs.ErrNotExist) {
		mounted, err = false, os.MkdirAll(target, 0o440)
	}
	if err != nil || mounted {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := unix.Mount(n.data(req.GetVolumeId()), target, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// NodeUnpublishVolume implements the CSI Node service.
func (n *node) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	n.unmanage(req.GetVolumeId())
	mounted, err := isMount(req.GetTargetPath())
	if mounted {
		err = unix.Unmount(req.GetTargetPath(), 0)
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, os.RemoveAll(filepath.Join(n.dir, req.GetVolumeId()))
}

// NodeGetCapabilities implements the CSI Node service.
func (*node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{
		Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP}},
	}}}, nil
}

// NodeGetInfo implements the CSI Node service.
func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.id}, nil
}
