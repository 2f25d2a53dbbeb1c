package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// A token is one of the pod's service account. It is a secret, and lies in memory alone.
type token struct {
	value     string
	expiresAt time.Time
}

// String hides the token from logs.
func (t token) String() string { return "token until " + stamp(t.expiresAt) }

// tokenOf is the token for the API server that came with the call; the zero token if there is none. It comes among the secrets where the CSIDriver object has
// serviceAccountTokenInSecrets, else in the volume's context (kubernetes pkg/volume/csi/csi_mounter.go).
func tokenOf(req *csi.NodePublishVolumeRequest) (token, error) {
	text := req.GetSecrets()[volume.Tokens]
	if text == "" {
		text = req.GetVolumeContext()[volume.Tokens]
	}
	if text == "" {
		return token{}, nil
	}
	var byAudience map[string]authenticationv1.TokenRequestStatus
	if json.Unmarshal([]byte(text), &byAudience) != nil { // Its error could quote the token.
		return token{}, errors.New(volume.Tokens + " is not the JSON of the kubelet")
	}
	found, ok := byAudience[""]
	if !ok && len(byAudience) == 1 { // The API server's audience by its name.
		for _, found = range byAudience {
		}
	}
	return token{found.Token, found.ExpirationTimestamp.Time}, nil
}

// errNoToken is what a certificate waits for that is asked for as the pod.
var errNoToken = signer.Errorf(signer.NotYet, "there is no fresh token of the pod's service account, with which this driver asks (--use-token-request): "+
	`the kubelet brings one with its next call, if the CSIDriver object has tokenRequests: [{audience: ""}] and requiresRepublish: true`)

// token is with what to ask for a certificate; nothing where the driver asks as itself.
func (d *Driver) token(h *held) (string, error) {
	if !d.AsPod {
		return "", nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokenless = !h.token.expiresAt.After(now())
	if h.tokenless {
		return "", errNoToken
	}
	return h.token.value, nil
}

// takeToken keeps the token for the next attempt, and lets that begin if it waited for one.
func (d *Driver) takeToken(h *held, t token) error {
	if t.value == "" {
		return nil
	}
	h.mu.Lock()
	h.token = t
	waited := h.tokenless && h.record.Failure != nil
	h.tokenless = false
	h.mu.Unlock()
	if !waited {
		return nil
	}
	err := h.update(func(r *files.Record) {
		failure := *r.Failure
		failure.RetryAt = now()
		r.Failure = &failure
	})
	d.schedule(h)
	if err != nil {
		return fmt.Errorf("take the token: %w", err)
	}
	return nil
}
