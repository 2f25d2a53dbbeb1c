package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
)

// auditOptions are the flags of the audit record.
type auditOptions struct {
	Path       string
	MaxSize    int
	MaxBackups int
	Namespace  string
}

// addTo sets the flags to their defaults. The files' are named as kube-apiserver names its own.
func (o *auditOptions) addTo(f *flag.FlagSet) {
	f.StringVar(&o.Path, "audit-log", "-",
		"file for the audit record, a JSON object on a line for each decision and each certificate; -: standard "+
			"output; empty: none")
	f.IntVar(&o.MaxSize, "audit-log-maxsize", 100, "megabytes that the file of --audit-log has before it is rotated")
	f.IntVar(&o.MaxBackups, "audit-log-maxbackup", 10, "rotated files of --audit-log that are kept")
	f.StringVar(&o.Namespace, "audit-namespace", "mayfly-system",
		"namespace of the Lease "+audit.LeaseName+": the replica that holds it decides first, and records the "+
			"certificates that cert-manager issues; with --audit-log")
}

// check returns an error for flags that can't be used.
func (o *auditOptions) check() error {
	switch {
	case o.MaxSize < 1:
		return fmt.Errorf("--audit-log-maxsize=%d: at least 1 is needed", o.MaxSize)
	case o.MaxBackups < 1:
		return fmt.Errorf("--audit-log-maxbackup=%d: at least 1 is needed", o.MaxBackups)
	case o.Path != "" && o.Namespace == "":
		return errors.New("--audit-log needs --audit-namespace")
	}
	return nil
}

// open opens the audit record and has the manager compete for its Lease; both are nil without --audit-log. The record
// must be closed after the manager has stopped.
func (o *auditOptions) open(
	m manager.Manager, self identity, stdout io.Writer, log *slog.Logger,
) (*audit.Log, *audit.Holder, error) {
	if o.Path == "" {
		return nil, nil, nil
	}
	leases, err := coordinationv1.NewForConfigAndClient(m.GetConfig(), m.GetHTTPClient())
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the API server: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("read the host's name: %w", err)
	}
	record := audit.Open(audit.Config{
		Path: o.Path, MaxSize: o.MaxSize, MaxBackups: o.MaxBackups, Stdout: stdout, Pod: self.pod(),
		Events: m.GetEventRecorder("mayfly-controller"), Metrics: metrics.Registry, Log: log,
	})
	holder := audit.NewHolder(leases, o.Namespace, host+"_"+string(uuid.NewUUID()), record)
	if err := m.Add(holder); err != nil {
		record.Close()
		return nil, nil, fmt.Errorf("add the audit record: %w", err)
	}
	return record, holder, nil
}

// pod returns the controller's own, for its Events; nil if its token is not that of a pod (k8s.io/apiserver
// pkg/authentication/serviceaccount, PodNameKey).
func (i identity) pod() *corev1.Pod {
	name, uid := i.Extra["authentication.kubernetes.io/pod-name"], i.Extra["authentication.kubernetes.io/pod-uid"]
	account, ok := strings.CutPrefix(i.Username, "system:serviceaccount:")
	namespace, _, _ := strings.Cut(account, ":")
	if !ok || len(name) != 1 || len(uid) != 1 {
		return nil
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name[0], UID: types.UID(uid[0])}}
}
