package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const (
	waitsEach   = 10              // How many volumes wait for each reason.
	waitsFor    = 3 * time.Second // How long the kubelet's calls for them take.
	mendTimeout = time.Minute
)

// The issuers of volumes that wait.
const (
	deniedIssuer = "denied" // Its requests are denied.
	silentIssuer = "silent" // Nobody answers.
	lateIssuer   = "late"   // It is not ready at first.
	caIssuer     = "ca"     // It signs, if it is asked.

	otherGroup = "bench.test" // Of the first two: cert-manager does not sign for them.
)

// waits has volumes wait beside those that are held, and counts what the driver that is ours uses before and after: it
// runs with the rights of the manifests meanwhile.
func (b *bench) waits(ctx context.Context) error {
	return b.eachDriver(func(d *driver) (err error) {
		if d.process == nil {
			return nil
		}
		a, err := newAccount(ctx, b.api.config, b.dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.remove()) }()
		own := d.command
		if err := b.restartAs(ctx, d, slices.Concat(own, []string{"--kubeconfig=" + a.kubeconfig})); err != nil {
			return err
		}
		return errors.Join(b.waits1(ctx, d, a), b.restartAs(ctx, d, own))
	})
}

// restartAs starts the driver's process anew, by another command.
func (b *bench) restartAs(ctx context.Context, d *driver, command []string) error {
	if err := d.stop(); err != nil {
		return err
	}
	d.command = command
	if err := d.start(ctx); err != nil {
		return err
	}
	return d.settle(ctx)
}

// waits1 has volumes wait for a driver that runs with the rights of the account.
func (b *bench) waits1(ctx context.Context, d *driver, a *account) error {
	first := b.volume(d, "first") // Opens the connection.
	if err := errors.Join(publish1(ctx, d, first), d.Unpublish(ctx, d.Driver, first)); err != nil {
		return err
	}
	before, err := b.settled(ctx, d)
	if err != nil {
		return err
	}
	if err := b.waitInVain(ctx, d, a); err != nil {
		return err
	}
	after, err := b.settled(ctx, d)
	if err != nil {
		return err
	}
	b.add(cpuAfter, d.name, after.cpu)
	b.add(watchAfter, d.name, after.watches)
	b.addFloor(filesAfter, before.files)
	b.add(filesAfter, d.name, after.files)
	return nil
}

// settled returns what the driver uses once its requests are deleted and it has nothing to do.
func (b *bench) settled(ctx context.Context, d *driver) (idle, error) {
	if err := errors.Join(b.api.drain(ctx), d.settle(ctx)); err != nil {
		return idle{}, err
	}
	return b.idleOf(ctx, d)
}

// waitInVain has volumes wait for an issuer whose requests are denied, for one that is silent, for one that becomes
// ready, and for a right that is given; and unpublishes them.
func (b *bench) waitInVain(ctx context.Context, d *driver, a *account) (err error) {
	remove, err := b.api.lateIssuer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	others := slices.Concat(b.waiting(d, deniedIssuer, others()), b.waiting(d, silentIssuer, others()))
	late, refused := b.waiting(d, lateIssuer, nil), b.waiting(d, caIssuer, nil)
	if err := b.undecided(ctx, d, slices.Concat(others, late)); err != nil {
		return err
	}
	if err := a.revoke(ctx); err != nil {
		return err
	}
	// Who is told at once that it has the right was refused for another reason: the first question must come before.
	if err := errors.Join(b.allWait(ctx, d, refused), wait(ctx, waitsFor), a.grant(ctx)); err != nil {
		return err
	}
	if err := b.api.mendLateIssuer(ctx); err != nil {
		return err
	}
	if err := b.mended(ctx, d, slices.Concat(late, refused)); err != nil {
		return err
	}
	all := slices.Concat(others, late, refused)
	_, err = b.each(len(all), func(i int) error { return d.Unpublish(ctx, d.Driver, all[i]) })
	return err
}

// waiting returns volumes of an issuer that wait.
func (b *bench) waiting(d *driver, issuer string, more map[string]string) (all []kubelet.Volume) {
	for i := range waitsEach {
		v := b.volume(d, fmt.Sprintf("waiting-%s-%d", issuer, i))
		v.Attributes = maps.Clone(v.Attributes)
		v.Attributes["csi.cert-manager.io/issuer-name"] = issuer
		maps.Copy(v.Attributes, more)
		all = append(all, v)
	}
	return all
}

// others returns the attributes of volumes whose issuer is none of cert-manager's.
func others() map[string]string {
	return map[string]string{"csi.cert-manager.io/issuer-kind": "Signer", "csi.cert-manager.io/issuer-group": otherGroup}
}

// undecided publishes volumes for whose requests nobody signs, denies what is to be denied, and demands that watches
// are open then: what is counted later is counted here.
func (b *bench) undecided(ctx context.Context, d *driver, volumes []kubelet.Volume) error {
	var group errgroup.Group
	group.Go(func() error { return b.allWait(ctx, d, volumes) })
	group.Go(func() error { return b.api.deny(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	for range 10 {
		n, err := b.newWatches(ctx)
		if err != nil || n >= waitsEach {
			return err
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
	return errors.New("volumes that wait have no watches")
}

// allWait publishes volumes, all at once, and demands that none gets a certificate.
func (b *bench) allWait(ctx context.Context, d *driver, volumes []kubelet.Volume) error {
	ctx, cancel := context.WithTimeout(ctx, waitsFor)
	defer cancel()
	_, err := b.each(len(volumes), func(i int) error {
		if publish1(ctx, d, volumes[i]) == nil {
			return fmt.Errorf("pod %s has a certificate, and was to wait for one", volumes[i].Pod.Name)
		}
		return nil
	})
	return err
}

// mended publishes volumes until all have their certificates.
func (b *bench) mended(ctx context.Context, d *driver, volumes []kubelet.Volume) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	_, err := b.each(len(volumes), func(i int) error {
		_, err := d.Mount(ctx, d.Driver, volumes[i], nil)
		return err
	})
	return err
}

// lateIssuer makes an issuer that is not ready. What it returns removes it.
func (a *api) lateIssuer(ctx context.Context) (remove func() error, err error) {
	issuers := a.certs.Issuers(namespace)
	o := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: lateIssuer}}
	o.Spec.CA = &cmapi.CAIssuer{SecretName: "not-there"}
	if _, err := issuers.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("make an issuer that is not ready: %w", err)
	}
	return func() error {
		return issuers.Delete(context.WithoutCancel(ctx), lateIssuer, metav1.DeleteOptions{})
	}, nil
}

// mendLateIssuer gives it a CA.
func (a *api) mendLateIssuer(ctx context.Context) error {
	patch := []byte(`{"spec": {"ca": {"secretName": "ca"}}}`)
	_, err := a.certs.Issuers(namespace).Patch(ctx, lateIssuer, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("mend the issuer: %w", err)
	}
	return nil
}

// deny denies the requests that are to be denied, as they come.
func (a *api) deny(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	denied := map[types.UID]bool{}
	for len(denied) < waitsEach {
		list, err := a.requests.List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list requests: %w", err)
		}
		for i := range list.Items {
			cr := &list.Items[i]
			if cr.Spec.IssuerRef.Name != deniedIssuer || denied[cr.UID] {
				continue
			}
			switch err := a.deny1(ctx, cr); {
			case err == nil:
				denied[cr.UID] = true
			case !apierrors.IsConflict(err) && !apierrors.IsNotFound(err): // cert-manager approves it at the same time.
				return fmt.Errorf("deny a request: %w", err)
			}
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("wait for requests to deny: %w", err)
		}
	}
	return nil
}

// deny1 denies a request.
func (a *api) deny1(ctx context.Context, cr *cmapi.CertificateRequest) error {
	const denied = cmapi.CertificateRequestConditionDenied
	apiutil.SetCertificateRequestCondition(cr, denied, cmmeta.ConditionTrue, "bench", "no")
	_, err := a.requests.UpdateStatus(ctx, cr, metav1.UpdateOptions{})
	return err
}
