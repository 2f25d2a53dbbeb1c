package main

import (
	"testing"

	"github.com/mayfly-csi/mayfly/cmd/flags/flagstest"
)

func TestReference(t *testing.T) {
	flagstest.Reference(t, "../../docs/reference.md", new(options).flags())
}

func TestShells(t *testing.T) { flagstest.Shells(t, mayfly()) }
