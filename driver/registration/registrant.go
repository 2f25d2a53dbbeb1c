package registration

import (
	"context"
	"log/slog"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// A registrant answers the kubelet that has found a plugin's registration socket (k8s.io/kubelet pkg/apis/pluginregistration/v1).
type registrant struct {
	registerapi.UnimplementedRegistrationServer
	Plugin
	log *slog.Logger
}

// GetInfo tells the kubelet where the CSI socket is.
func (r registrant) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: r.Name, Endpoint: r.Endpoint,
		SupportedVersions: []string{"1.0.0"}, // Of the CSI spec's major version (kubernetes pkg/volume/csi/csi_plugin.go).
	}, nil
}

// NotifyRegistrationStatus logs what became of the registration.
func (r registrant) NotifyRegistrationStatus(
	_ context.Context, status *registerapi.RegistrationStatus,
) (*registerapi.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.log.Info("registered with the kubelet", "driver", r.Name)
	} else {
		r.log.Error("the kubelet refused the registration; it tries again", "driver", r.Name, "error", status.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
