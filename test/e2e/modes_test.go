package e2e

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/mayfly-csi/mayfly/test/forge"
)

// unlessTheOperator is what the author of a pod reads that wants to ask for itself.
const unlessTheOperator = "csi.mayfly.dev/use-token-request is true, and no volume asks as its pod unless the operator of this driver says so, by --use-token-request or a profile: leave it out"

// tokenRequests is a cluster without a controller whose pods ask for themselves until the story ends; the driver may not.
func (s *story) tokenRequests() {
	s.Helper()
	s.asThePod()
	manifests := filepath.Join("..", "..", "manifests")
	s.Cleanup(func() {
		for _, args := range [][]string{
			{"apply", "--filename", filepath.Join(manifests, "rbac.yaml")},
			{"delete", "--ignore-not-found", "--filename", filepath.Join(manifests, "options", "token-request", "rbac.yaml")},
		} {
			if _, err := shared.Kubectl(context.Background(), args...); err != nil {
				s.Error(err)
			}
		}
	})
	for _, args := range [][]string{
		{"apply", "--filename", filepath.Join(manifests, "options", "token-request", "rbac.yaml")},
		{"delete", "--filename", filepath.Join(manifests, "rbac.yaml")},
	} {
		if _, err := shared.Kubectl(s.Context(), args...); err != nil {
			s.Fatal(err)
		}
	}
	s.configure("MAYFLY_USE_TOKEN_REQUEST=true")
	s.Cleanup(func() { s.configure("MAYFLY_USE_TOKEN_REQUEST-") })
}

// asPods is a cluster whose pods ask for themselves once its operator says so, and whose driver can ask for nothing.
func asPods(s *story) {
	s.create(pod("early", own("use-token-request=true")))
	s.says("early", "FailedMount", unlessTheOperator)
	s.tokenRequests()
	s.ready("early")
	s.deploy(4, own("duration=1m"))
	s.rotate(s.readyPods(4))
	if _, err := s.kubectl("delete", "deployment", "--all"); err != nil {
		s.Fatal(err)
	}
	s.start(pod("web", own()))
	web := s.ready("web")
	cr, err := forge.Request(web, "stolen")
	if err != nil {
		s.Fatal(err)
	}
	if got := s.outcome(s.thief(web.Spec.NodeName), cr); !strings.Contains(got, "cannot create resource") {
		s.Errorf("a thief of the driver's token asks: %s", got)
	}
}
