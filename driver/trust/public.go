package trust

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// watchPublic reports the CA certificates of the public web, which are as old as this binary, until ctx ends.
func watchPublic(ctx context.Context, log *slog.Logger, report func(Answer)) {
	info, _ := debug.ReadBuildInfo()
	roots, constrained, err := publicRoots()
	log.Info("public CA certificates of golang.org/x/crypto/x509roots", "date", publicDate(info),
		"certificates", len(roots), "leftOut", constrained)
	report(Answer{Certificates: roots, Err: err})
	<-ctx.Done()
}

// publicRoots returns Mozilla's list, and how many are left out: those that it trusts within limits that a file of
// certificates can't express.
func publicRoots() (roots chain.Bundle, constrained int, err error) {
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			constrained++
			continue
		}
		c, err := chain.FromDER(root.Certificate)
		if err != nil {
			return nil, 0, fmt.Errorf("parse a public CA certificate: %w", err)
		}
		roots = append(roots, c)
	}
	return roots, constrained, nil
}

// publicDate returns the date of the list: that of the module's version, v0.0.0-<time>-<commit>.
func publicDate(info *debug.BuildInfo) string {
	if info == nil {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path != "golang.org/x/crypto/x509roots/fallback" {
			continue
		}
		parts := strings.Split(m.Version, "-")
		if at, err := time.Parse("20060102150405", parts[min(1, len(parts)-1)]); err == nil {
			return at.Format(time.DateOnly)
		}
		return m.Version
	}
	return "unknown"
}
