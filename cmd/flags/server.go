package flags

import (
	"errors"
	"flag"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A Cluster is kubectl's flags that say which API server.
type Cluster struct{ Kubeconfig, Context string }

// Add defines the flags in fs.
func (c *Cluster) Add(fs *flag.FlagSet) {
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "",
		"kubeconfig file for the API server; empty: as kubectl does it, those of the environment variable KUBECONFIG, "+
			"~/.kube/config, or the pod's service account")
	fs.StringVar(&c.Context, "context", "", "context of the kubeconfig file; empty: its current one")
}

// Connect returns the API server, for a command, whose name and version it sees, and the namespace of the context.
func (c Cluster) Connect(command string) (config *rest.Config, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: c.Context}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	if config, err = loaded.ClientConfig(); err == nil {
		namespace, _, err = loaded.Namespace()
	}
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("there is no kubeconfig file: --kubeconfig and KUBECONFIG can name one")
	}
	if err != nil {
		return nil, "", fmt.Errorf("find the API server: %w", err)
	}
	return rest.AddUserAgent(config, command+"/"+Version()), namespace, nil
}

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
