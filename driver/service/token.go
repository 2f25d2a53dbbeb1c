package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// maxTokens is the greatest size in bytes of the tokens of a call: of some tens of audiences.
const maxTokens = 64 << 10

// tokenOf returns the token for the API server in the call; the zero Token if there is none. It is among the secrets
// if the CSIDriver object has serviceAccountTokenInSecrets, else in the volume's context (kubernetes
// pkg/volume/csi/csi_mounter.go).
func tokenOf(req *csi.NodePublishVolumeRequest) (issue.Token, error) {
	text := req.GetSecrets()[spec.Tokens]
	if text == "" {
		text = req.GetVolumeContext()[spec.Tokens]
	}
	if text == "" {
		return issue.Token{}, nil
	}
	if len(text) > maxTokens {
		return issue.Token{}, fmt.Errorf("%s has %d bytes: at most %d", spec.Tokens, len(text), maxTokens)
	}
	// As k8s.io/api authentication/v1, TokenRequestStatus.
	var byAudience map[string]struct {
		Token               signer.Token `json:"token"`
		ExpirationTimestamp time.Time    `json:"expirationTimestamp"`
	}
	if json.Unmarshal([]byte(text), &byAudience) != nil { // Its error could quote the token.
		return issue.Token{}, errors.New(spec.Tokens + " is not the JSON of the kubelet")
	}
	found := byAudience[""] // That of the API server: it must not see another audience's token.
	return issue.Token{Value: found.Token, ExpiresAt: found.ExpirationTimestamp}, nil
}
