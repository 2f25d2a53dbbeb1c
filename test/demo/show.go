package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A pod is a volume and what was seen in it.
type pod struct {
	volume    kubelet.Volume
	target    string
	leaf      *x509.Certificate
	since     time.Time // When the leaf was first seen.
	rotations int
}

func (p *pod) name() string { return p.volume.Namespace + "/" + p.volume.Pod.Name }

// look reads the pair as the pod would, and reports whether it is another one than before.
func (p *pod) look() (changed bool, err error) {
	bundle := filepath.Join(p.target, "credential-bundle.pem")
	pair, err := tls.LoadX509KeyPair(bundle, bundle)
	if errors.Is(err, fs.ErrNotExist) && p.leaf != nil {
		return false, nil // It was replaced at this moment.
	}
	if err != nil {
		return false, fmt.Errorf("read the pair of %s: %w", p.name(), err)
	}
	if p.leaf != nil && p.leaf.Equal(pair.Leaf) {
		return false, nil
	}
	if p.leaf != nil {
		p.rotations++
	}
	p.leaf, p.since = pair.Leaf, time.Now()
	return true, nil
}

// show draws the pods every second until ctx ends; where the output is no terminal, it writes a line for each rotation.
func show(ctx context.Context, out *os.File, pods []*pod) {
	live := term.IsTerminal(int(out.Fd()))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, p := range pods {
			changed, err := p.look()
			switch {
			case err != nil:
				fmt.Fprintln(out, err)
			case changed && !live:
				fmt.Fprintf(out, "%-14s rotation %d  serial %s  valid until %s  %s\n", p.name(), p.rotations, serial(p.leaf), p.leaf.NotAfter.Local().Format(time.TimeOnly), p.target)
			}
		}
		if live {
			draw(out, pods)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func draw(out io.Writer, pods []*pod) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"pod", "identity", "serial", "lifetime left", "", "rotations"})
	for _, p := range pods {
		left := max(time.Until(p.leaf.NotAfter), 0)
		share := float64(left) / float64(p.leaf.NotAfter.Sub(p.since))
		t.AppendRow(table.Row{p.name(), p.leaf.URIs[0], serial(p.leaf), bar(share), left.Round(time.Second), p.rotations})
	}
	const home, clear = "\x1b[H", "\x1b[J"
	fmt.Fprintf(out, "%s%sMayfly: each pod has a certificate of its own, renewed after two thirds of its life.\n\n%s\n\nLook yourself, from another shell:\n  openssl x509 -noout -text -in %s\n\nCtrl-C unpublishes and leaves nothing.\n",
		home, clear, t.Render(), visible(filepath.Join(pods[0].target, "tls.crt")))
}

// bar is a share of a lifetime, drawn.
func bar(share float64) string {
	const width = 24
	full := min(max(int(share*width+0.5), 0), width)
	colour := text.FgGreen
	switch {
	case share < 0.2:
		colour = text.FgRed
	case share < 0.4:
		colour = text.FgYellow
	}
	return colour.Sprint(strings.Repeat("█", full)) + strings.Repeat("░", width-full)
}

func serial(c *x509.Certificate) string {
	s := c.SerialNumber.Text(16)
	return s[:min(len(s), 10)]
}
