package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Register waits until the named driver offers itself in the plug-in directory, registers it as the kubelet does
// (kubernetes pkg/kubelet/pluginmanager), and connects to its CSI socket. A driver that is slow to answer is asked again.
func (k *Kubelet) Register(ctx context.Context, name string) (Driver, error) {
	dir := filepath.Join(k.Root, "plugins_registry")
	watch, err := watch(dir)
	if err != nil {
		return Driver{}, fmt.Errorf("watch %s: %w", dir, err)
	}
	defer watch.Close()
	for {
		sockets, err := offers(dir)
		if err != nil {
			return Driver{}, err
		}
		for _, socket := range sockets {
			info, err := ask(ctx, socket)
			if err != nil || info.GetName() != name {
				continue
			}
			if d, err := accept(ctx, socket, info); status.Code(err) != codes.DeadlineExceeded {
				return d, err
			}
		}
		if err := next(ctx, watch, len(sockets) > 0); err != nil {
			return Driver{}, fmt.Errorf("wait for driver %s in %s: %w", name, dir, context.Cause(ctx))
		}
	}
}

// next waits for a change in the directory; where a plug-in is that did not answer, not for long: the kubelet asks again
// (kubernetes pkg/util/goroutinemap/exponentialbackoff).
func next(ctx context.Context, watch *os.File, again bool) error {
	var deadline time.Time
	if again {
		deadline = time.Now().Add(500 * time.Millisecond)
	}
	if err := watch.SetReadDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = watch.SetReadDeadline(time.Unix(1, 0)) })()
	_, err := watch.Read(make([]byte, 4096))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// watch is an inotify descriptor on dir.
func watch(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// offers are the sockets in the plug-in directory. The kubelet overlooks names that begin with a dot.
func offers(dir string) (sockets []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list plug-ins: %w", err)
	}
	for _, e := range entries {
		if e.Type() == os.ModeSocket && !strings.HasPrefix(e.Name(), ".") {
			sockets = append(sockets, filepath.Join(dir, e.Name()))
		}
	}
	return sockets, nil
}

// call calls the registration service on a socket, in the time that the kubelet allows.
func call(ctx context.Context, socket string, f func(context.Context, registration.RegistrationClient) error) error {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return f(ctx, registration.NewRegistrationClient(conn))
}

func ask(ctx context.Context, socket string) (info *registration.PluginInfo, err error) {
	err = call(ctx, socket, func(ctx context.Context, c registration.RegistrationClient) (err error) {
		info, err = c.GetInfo(ctx, &registration.InfoRequest{})
		return err
	})
	return info, err
}

// accept checks the offer, connects to its endpoint and tells the driver.
func accept(ctx context.Context, socket string, info *registration.PluginInfo) (Driver, error) {
	if info.GetType() != registration.CSIPlugin || !slices.Contains(info.GetSupportedVersions(), "1.0.0") {
		return Driver{}, fmt.Errorf("register %s: type %q, versions %v", info.GetName(), info.GetType(), info.GetSupportedVersions())
	}
	endpoint := info.GetEndpoint()
	if endpoint == "" {
		endpoint = socket
	}
	d, err := Connect(endpoint)
	if err != nil {
		return Driver{}, err
	}
	if _, err := d.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}); err != nil {
		_ = d.Close()
		return Driver{}, fmt.Errorf("register %s: %w", info.GetName(), err)
	}
	err = call(ctx, socket, func(ctx context.Context, c registration.RegistrationClient) error {
		_, err := c.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: true})
		return err
	})
	if err != nil {
		_ = d.Close()
		return Driver{}, err
	}
	return d, nil
}
