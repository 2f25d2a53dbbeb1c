// Command olddriver plays cert-manager's csi-driver together with its registrar, as far as a move away from it shows: the name and the paths,
// the mounts and the files, and what they do when they start and end. Its certificates come from a CA in files, and have an organization.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// The name and the paths are those of csi-driver's chart (deploy/charts/csi-driver/templates/daemonset.yaml).
const (
	name     = "csi.cert-manager.io"
	endpoint = "/var/lib/kubelet/plugins/cert-manager-csi-driver/csi.sock"
	offer    = "/var/lib/kubelet/plugins_registry/" + name + "-reg.sock"
	dataRoot = "/csi-data-dir"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Println("olddriver:", err)
		os.Exit(1)
	}
}

// run serves the kubelet until ctx ends. Then the registrar removes the socket at its path, whoever made it
// (node-driver-registrar cmd/csi-node-driver-registrar/node_register.go); mounts and files stay.
func run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	node, err := openNode(ctx, group, filepath.Join(dataRoot, "inmemfs"), os.Getenv("NODE_ID"))
	if err != nil {
		return err
	}
	plugin, registrar := grpc.NewServer(), grpc.NewServer()
	csi.RegisterIdentityServer(plugin, identity{})
	csi.RegisterNodeServer(plugin, node)
	registration.RegisterRegistrationServer(registrar, offered{})
	for path, server := range map[string]*grpc.Server{endpoint: plugin, offer: registrar} {
		listener, err := listen(path)
		if err != nil {
			return err
		}
		group.Go(func() error { return server.Serve(listener) })
	}
	group.Go(func() error {
		<-ctx.Done()
		registrar.Stop()
		plugin.Stop()
		_ = os.Remove(offer)
		return nil
	})
	return group.Wait()
}

// listen listens on a socket in place of what lies at its path.
func listen(path string) (net.Listener, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, fmt.Errorf("remove the socket of before: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:errcheck,forcetypeassert // It is one.
	return listener, nil
}

// offered is the registrar's service.
type offered struct {
	registration.UnimplementedRegistrationServer
}

// GetInfo offers the plug-in to the kubelet.
func (offered) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: name, Endpoint: endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus prints what the kubelet made of the offer.
func (offered) NotifyRegistrationStatus(
	_ context.Context, s *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	fmt.Println("registered:", s.GetPluginRegistered(), s.GetError())
	return &registration.RegistrationStatusResponse{}, nil
}

// identity is the CSI Identity service.
type identity struct {
	csi.UnimplementedIdentityServer
}

// GetPluginInfo implements the CSI Identity service.
func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: "played"}, nil
}
