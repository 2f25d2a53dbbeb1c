// Command cluster starts and ends a Kubernetes cluster on this machine: `cluster up`, `cluster down`. `cluster build` only builds what it runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

func main() { cluster.Main("cluster", run) }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory for all that the cluster writes")
	nodes := flags.String("nodes", "node-a,node-b", "names of the nodes; empty for a control plane alone")
	namespace := flags.String("namespace", "", "make this namespace, with an issuer ca")
	if len(args) == 0 {
		return errors.New("say up, down or build")
	}
	if args[0] == "build" {
		return cluster.Build(ctx, tell)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("--dir is required")
	}
	path, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	switch args[0] {
	case "up":
		names := strings.FieldsFunc(*nodes, func(r rune) bool { return r == ',' })
		return up(ctx, &cluster.Cluster{Dir: path, Nodes: names, Versions: cluster.VersionsOf()}, *namespace)
	case "down":
		return cluster.Down(path)
	}
	return fmt.Errorf("%s is not known: say up, down or build", args[0])
}

func up(ctx context.Context, c *cluster.Cluster, namespace string) error {
	if err := c.Up(ctx, tell); err != nil {
		return err
	}
	if namespace != "" {
		if _, err := c.Namespace(ctx, namespace); err != nil {
			return err
		}
	}
	fmt.Printf("export KUBECONFIG=%s\nexport PATH=%s:$PATH\n", c.Kubeconfig(), c.Bin())
	return nil
}

func tell(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
