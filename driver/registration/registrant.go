package registration

import (
	"context"
	"log/slog"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// A registrant serves the kubelet's calls on a plugin's registration socket (k8s.io/kubelet
// pkg/apis/pluginregistration/v1).
type registrant struct {
	registerapi.UnimplementedRegistrationServer
	Plugin
	status *status
	log    *slog.Logger
}

// GetInfo returns the plugin's name and the path of its CSI socket.
func (r registrant) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: r.Name, Endpoint: r.Endpoint,
		SupportedVersions: []string{"1.0.0"}, // Of the CSI spec (kubernetes pkg/volume/csi/csi_plugin.go).
	}, nil
}

// NotifyRegistrationStatus records and logs the result of the registration.
func (r registrant) NotifyRegistrationStatus(
	_ context.Context, status *registerapi.RegistrationStatus,
) (*registerapi.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.status.set(r.Name, "")
		r.log.Info("registered with the kubelet", "driver", r.Name)
	} else {
		r.status.set(r.Name, "the kubelet refused to register the driver: "+status.GetError())
		r.log.Error("the kubelet refused the registration; it tries again",
			"driver", r.Name, "error", message.Cut(status.GetError(), message.Longest))
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
