package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/decision"
)

// rightsInterval is how long to wait before an API server that did not answer is asked again.
const rightsInterval = 10 * time.Second

// withoutRights runs a node plugin, and warns once if it may create CertificateRequests and need not, because its node
// asks, or its pods, or an embedded CA signs: manifests/rbac.yaml gives that right, also when it is applied again.
func withoutRights(
	ctx context.Context, api *rest.Config, o options, log *slog.Logger, run func(context.Context) error,
) error {
	if api == nil || o.asksItself() {
		return run(ctx)
	}
	rights, err := decision.NewRights(api, decision.Right{
		Verb: "create", Group: "cert-manager.io", Resource: "certificaterequests",
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	asking.Go(func() { warnOfRights(ctx, rights, log) })
	return run(ctx)
}

// asksItself reports whether the node plugin makes CertificateRequests with its own account.
func (o *options) asksItself() bool { return o.Signer == signerCertManager && !o.AsPod }

// warnOfRights logs whether the rights are held once the API server has said so.
func warnOfRights(ctx context.Context, rights *decision.Rights, log *slog.Logger) {
	for {
		held, err := rights.Held(ctx)
		if held {
			log.Warn("the node plugin may create CertificateRequests of any pod, and need not: " +
				"who steals its token may, too; take the right away: kubectl delete -f manifests/rbac.yaml")
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(rightsInterval):
		case <-ctx.Done():
			return
		}
	}
}
