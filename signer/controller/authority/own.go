package authority

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// own does one step of the controller's own CA, if one is due. What was published before the step is published first: a
// CA does not sign whose root the API server does not take.
func (k *Keeper) own(ctx context.Context, name, signer string, now time.Time) (wakeAt time.Time, err error) {
	secret, state, err := k.read(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	leaves, err := k.publish(ctx, signer, state.Roots, now)
	if err != nil {
		return time.Time{}, err
	}
	step, wakeAt := k.Plan.Next(state, now)
	if step != Keep {
		return now, k.take(ctx, step, secret, state, now)
	}
	k.ends.WithLabelValues(signer).Set(float64(state.Signing.Certificate.NotAfter.Unix()))
	return soonest(wakeAt, leaves), nil
}

// read returns the state, and the Secret that has it: a new one, if there is none.
func (k *Keeper) read(ctx context.Context, name string) (*corev1.Secret, State, error) {
	secret := &corev1.Secret{}
	err := k.Live.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		fresh := &corev1.Secret{Type: corev1.SecretTypeTLS}
		fresh.Namespace, fresh.Name = k.Namespace, name
		return fresh, State{}, nil
	}
	if err != nil {
		return nil, State{}, fmt.Errorf("read Secret %s/%s: %w", k.Namespace, name, err)
	}
	if secret.Type != corev1.SecretTypeTLS { // The replicas' caches have no others.
		return nil, State{}, k.broken(name, fmt.Errorf("it is of type %s, not %s", secret.Type, corev1.SecretTypeTLS))
	}
	state, err := ParseState(secret.Data)
	if err != nil {
		return nil, State{}, k.broken(name, err)
	}
	return secret, state, nil
}

// take does a step and writes the state down, if the Secret is still the one that was read.
func (k *Keeper) take(ctx context.Context, step Step, secret *corev1.Secret, state State, now time.Time) error {
	state, err := k.Plan.Take(step, state, now)
	if err != nil {
		return err
	}
	if secret.Data, err = state.Write(secret.Data); err != nil {
		return err
	}
	write := func() error { return k.API.Update(ctx, secret) }
	if secret.ResourceVersion == "" {
		write = func() error { return k.API.Create(ctx, secret) }
	}
	if err := write(); err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return k.taken(ctx, step, secret.Name, state)
}

// taken tells of a step.
func (k *Keeper) taken(ctx context.Context, step Step, name string, state State) error {
	signer, _ := k.Signer(name)
	k.Log.Info("CA rotated", "signer", signer, "step", string(step),
		"signing", state.Signing.String(), "roots", len(state.Roots))
	switch step {
	case Prepare:
		k.tell(name, corev1.EventTypeNormal, "CAPrepared", "%s is published, and signs later", state.Next)
	case Promote:
		k.tell(name, corev1.EventTypeNormal, "CAPromoted", "%s signs from now on", state.Signing)
	case Begin:
		return k.begun(ctx, signer, name, state)
	}
	return nil
}

// begun tells of a new CA; and that it stands for one that is gone, if there was one.
func (k *Keeper) begun(ctx context.Context, signer, name string, state State) error {
	err := k.API.Get(ctx, client.ObjectKey{Name: bundleName(signer)}, &certificatesv1.ClusterTrustBundle{})
	switch {
	case apierrors.IsNotFound(err):
		k.tell(name, corev1.EventTypeNormal, "CAMade", "%s signs from now on", state.Signing)
		return nil
	case err != nil:
		return fmt.Errorf("read ClusterTrustBundle %s: %w", bundleName(signer), err)
	}
	k.Log.Warn("the CA was gone or over: a new one was made, which nobody trusts yet",
		"signer", signer, "secret", k.Namespace+"/"+name)
	const format = "the CA was gone or over: %s signs from now on, and is trusted where the ClusterTrustBundle " +
		"has come; its other roots stay in it for %s"
	k.tell(name, corev1.EventTypeWarning, "CAReplaced", format,
		state.Signing, k.Plan.Leaf)
	return nil
}

// publish sees to it that the signer's bundle has the roots, and says when it is to be seen to again. Without a root
// there is nothing to publish.
func (k *Keeper) publish(
	ctx context.Context, signer string, roots []*x509.Certificate, now time.Time,
) (wakeAt time.Time, err error) {
	if len(roots) == 0 {
		return time.Time{}, nil
	}
	bundle := &certificatesv1.ClusterTrustBundle{}
	err = k.API.Get(ctx, client.ObjectKey{Name: bundleName(signer)}, bundle)
	if apierrors.IsNotFound(err) {
		bundle.Name, bundle.Spec.SignerName = bundleName(signer), signer
		bundle.Labels = map[string]string{"app.kubernetes.io/managed-by": "mayfly-controller"}
	} else if err != nil {
		return time.Time{}, fmt.Errorf("read ClusterTrustBundle %s: %w", bundleName(signer), err)
	}
	before, err := readRoll(bundle)
	if err != nil {
		return time.Time{}, err
	}
	after, wakeAt := before.turn(roots, now, k.Plan.Leaf)
	changed, err := after.write(bundle)
	if err != nil || !changed {
		return wakeAt, err
	}
	return wakeAt, k.put(ctx, bundle)
}

// put writes a bundle, if it is still the one that was read.
func (k *Keeper) put(ctx context.Context, bundle *certificatesv1.ClusterTrustBundle) (err error) {
	if bundle.ResourceVersion == "" {
		err = k.API.Create(ctx, bundle)
	} else {
		err = k.API.Update(ctx, bundle)
	}
	if err != nil {
		return fmt.Errorf("publish ClusterTrustBundle %s: %w", bundle.Name, err)
	}
	k.Log.Info("roots published", "bundle", bundle.Name)
	return nil
}
