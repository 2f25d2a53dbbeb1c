package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// parse measures how long the attributes of a volume are parsed: those of the bench, and 256, of the kind that takes
// longest.
func (b *bench) parse(context.Context) error {
	plain, many := asked(spec.CSIDriver, b.attributes), manyAttributes()
	for range b.rounds {
		took, err := parseTime(plain)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		b.add(parsePlain, mayfly, micro(took))
		var longest time.Duration
		for _, one := range many {
			took, _ := parseTime(one) // A refusal takes its time, too.
			longest = max(longest, took)
		}
		b.add(parseMany, mayfly, micro(longest))
	}
	return nil
}

// manyAttributes are volumes with 256 attributes each, of different kinds.
func manyAttributes() (all []volume.Asked) {
	known := volume.Attributes()
	for _, kind := range []func(i int) (key, value string){
		// Those that are passed on to the issuer.
		func(i int) (string, string) { return fmt.Sprintf("example.org/a-rather-long-name-%03d", i), "value" },
		// Those that nobody knows.
		func(i int) (string, string) {
			return fmt.Sprintf("%sa-rather-long-name-%03d", spec.Prefix, i), "value"
		},
		// Those that there are, and those that look like them.
		func(i int) (string, string) {
			key := spec.Prefix + known[i%len(known)].Name
			if i >= len(known) {
				key += fmt.Sprint(i)
			}
			return key, known[i%len(known)].Example
		},
	} {
		attributes := map[string]string{spec.Prefix + "dns-names": "web"}
		for i := 0; len(attributes) < 256; i++ {
			key, value := kind(i)
			attributes[key] = value
		}
		all = append(all, asked(spec.Mayfly, attributes))
	}
	return all
}

// asked is the call that the kubelet makes for a volume with these attributes.
func asked(dialect spec.Dialect, attributes map[string]string) volume.Asked {
	pod := kubelet.Pod{Namespace: namespace, Name: "web", UID: "web", ServiceAccount: "default"}
	req := (&kubelet.Kubelet{Root: "/var/lib/kubelet"}).Request(kubelet.Volume{Pod: pod, Attributes: attributes})
	return volume.Asked{
		Asked: spec.Asked{Driver: spec.Driver, Dialect: dialect, Attributes: req.GetVolumeContext()},
		ID:    req.GetVolumeId(), Target: req.GetTargetPath(),
	}
}

// parseTime is the CPU that one call of [volume.Parse] takes, of as many as take a twentieth of a second.
func parseTime(asked volume.Asked) (took time.Duration, err error) {
	n := 0
	cpu, cpuErr := spent(func() error {
		for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; n++ {
			_, err = volume.Parse(asked, volume.Defaults{Defaults: spec.Defaults{IssuerName: "ca"}})
		}
		return nil
	})
	return cpu.total() / time.Duration(n), errors.Join(err, cpuErr)
}

func micro(d time.Duration) float64 { return milli(d) * 1000 }
