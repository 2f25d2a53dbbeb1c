package certmanager_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/mayfly-csi/mayfly/signer"
)

// A denied request is watched for what says that another one would be approved. One that is gone can't say so any more.
func TestADeniedRequestThatMayBeApproved(t *testing.T) {
	for name, row := range map[string]struct {
		then   func(s *apiServer, send func(kind string, object any))
		mended bool
	}{
		"another one would be approved": {func(s *apiServer, send func(string, any)) {
			send("MODIFIED", s.with(cmapi.CertificateRequestConditionReady, cmapi.CertificateRequestReasonDenied))
			send("MODIFIED", s.with(signer.Approvable, "VerifiedByMayfly"))
		}, true},
		"it is deleted":   {func(s *apiServer, send func(string, any)) { send("DELETED", s.with("other", "")) }, true},
		"it stays denied": {func(s *apiServer, send func(string, any)) { send("MODIFIED", s.with("other", "")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			watches, over := 0, make(chan struct{})
			defer close(over)
			s := &apiServer{t: t}
			s.watch = func(_ http.ResponseWriter, send func(kind string, object any)) {
				if watches++; watches == 1 {
					send("MODIFIED", s.with(cmapi.CertificateRequestConditionDenied, "NotAllowed"))
					return
				}
				row.then(s, send)
				<-over
			}
			backend := s.start()
			_, err := backend.Sign(t.Context(), request())
			var refused *signer.Error
			if !errors.As(err, &refused) || refused.Kind != signer.Denied || refused.Mended == nil {
				t.Fatalf("got %+v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{true: time.Minute, false: time.Second / 2}[row.mended])
			defer cancel()
			if err := refused.Mended(ctx, nil); (err == nil) != row.mended {
				t.Errorf("got %v", err)
			}
		})
	}
}
