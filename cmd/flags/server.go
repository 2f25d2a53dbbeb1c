package flags

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// APIServer returns the API server of a kubeconfig file, or, without one, that of the pod's service account, for a
// command, whose name and version it sees.
func APIServer(kubeconfig, command string) (config *rest.Config, err error) {
	if kubeconfig == "" { // clientcmd would do the same, and log a warning.
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	return rest.AddUserAgent(config, command+"/"+Version()), nil
}
