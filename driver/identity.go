package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// identity is the CSI Identity service.
type identity struct {
	csi.UnimplementedIdentityServer
	*Driver
	Name
}

// GetPluginInfo implements the CSI Identity service.
func (i identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.Name.Name, VendorVersion: i.Version}, nil
}

// GetPluginCapabilities implements the CSI Identity service: a node plugin has none.
func (i identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe implements the CSI Identity service. A signer that is away does not make the plugin unready: volumes that are valid are served.
func (i identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// registrant is the kubelet's plug-in registration service (k8s.io/kubelet pkg/apis/pluginregistration/v1).
type registrant struct {
	registration.UnimplementedRegistrationServer
	*Driver
	Name
}

// GetInfo tells the kubelet where the CSI socket is.
func (r registrant) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: r.Name.Name, Endpoint: r.Endpoint,
		SupportedVersions: []string{"1.0.0"}, // Of the CSI spec's major version (kubernetes pkg/volume/csi/csi_plugin.go).
	}, nil
}

// NotifyRegistrationStatus hears what became of it.
func (r registrant) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.Log.Info("registered with the kubelet", "driver", r.Name.Name)
	} else {
		r.Log.Error("the kubelet refused the registration; it tries again", "driver", r.Name.Name, "error", status.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}
