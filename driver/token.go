package driver

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// A token is one of the pod's service account, which lies in memory alone.
type token struct {
	value     signer.Token
	expiresAt time.Time
}

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
	found := byAudience[""] // That of the API server: another audience's token is not for its eyes.
	return token{signer.Token(found.Token), found.ExpirationTimestamp.Time}, nil
}

// errNoToken is what a certificate waits for that is asked for as the pod.
var errNoToken = signer.Errorf(signer.NotYet, "there is no fresh token of the pod's service account, with which this driver asks (use-token-request): "+
	`the kubelet brings one with its next call, if the CSIDriver object has tokenRequests: [{audience: ""}] and requiresRepublish: true`)

// token is with what to ask for a certificate; nothing where the driver asks as itself.
func (d *Driver) token(h *held) (signer.Token, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.volume.AsPod {
		return "", nil
	}
	h.tokenless = !h.token.expiresAt.After(now())
	if h.tokenless {
		return "", errNoToken
	}
	return h.token.value, nil
}

// takeToken keeps the call's token for the next attempt, and lets that begin if it waited for one. A call without one, or whose token is of no use, is as
// good as any for a volume that needs none now.
func (d *Driver) takeToken(h *held, req *csi.NodePublishVolumeRequest) {
	t, err := tokenOf(req)
	if err != nil {
		d.Log.Warn("the token of a call is of no use", "volume", h.id, "error", err)
	}
	if t.value == "" {
		return
	}
	h.mu.Lock()
	h.token = t
	waited := h.tokenless
	h.tokenless = false
	h.mu.Unlock()
	if !waited {
		return
	}
	err = h.update(func(r *files.Record) {
		if r.Failure != nil {
			failure := *r.Failure
			failure.RetryAt = now()
			r.Failure = &failure
		}
	})
	if err != nil {
		d.Log.Warn("a volume that waited for a token is not tried at once", "volume", h.id, "error", err)
	}
	d.schedule(h)
}
