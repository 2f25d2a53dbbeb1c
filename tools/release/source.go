package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// modulePath is the path of the module that has the programs.
const modulePath = "github.com/mayfly-csi/mayfly"

// A source is what a release is made from: the commit of a repository, in a directory of its own.
type source struct {
	Version string // As Go has it: v0.1.0.
	Dir     string
	Commit  string
	Date    time.Time // Of the commit.
}

// number returns the version as Helm has it: 0.1.0.
func (s source) number() string { return strings.TrimPrefix(s.Version, "v") }

// parseVersion returns the version as Go has it, with a v. It must be whole, and have no +: tags of images can't.
func parseVersion(text string) (string, error) {
	version := "v" + strings.TrimPrefix(text, "v")
	if semver.Canonical(version) != version {
		return "", fmt.Errorf("VERSION=%s: a semantic version without + is needed, such as 0.1.0, v0.1.0 or 0.2.0-rc.1",
			text)
	}
	if err := module.Check(modulePath, version); err != nil {
		return "", fmt.Errorf("VERSION=%s: %w", text, err)
	}
	return version, nil
}

// checkOut clones the commit of a repository into a directory, and gives it the version as its only tag there: the go
// command stamps the programs by it. The repository itself is only read.
func checkOut(ctx context.Context, repository, version, dir string, ignoreChanges bool) (source, error) {
	changes, err := git(ctx, repository, "status", "--porcelain")
	if err != nil {
		return source{}, err
	}
	if changes != "" && !ignoreChanges {
		return source{}, fmt.Errorf("the checkout has changes that no commit has, and a release is of a commit: "+
			"commit them, or leave them out with IGNORE_CHANGES=true:\n%s", changes)
	}
	commit, err := git(ctx, repository, "rev-parse", "HEAD")
	if err != nil {
		return source{}, err
	}
	if err := checkTag(ctx, repository, version, commit); err != nil {
		return source{}, err
	}
	if _, err := git(ctx, repository, "clone", "--quiet", "--shared", "--no-tags", ".", dir); err != nil {
		return source{}, err
	}
	if _, err := git(ctx, dir, "tag", version, commit); err != nil {
		return source{}, err
	}
	written, err := git(ctx, dir, "show", "--no-patch", "--format=%cI", commit)
	if err != nil {
		return source{}, err
	}
	date, err := time.Parse(time.RFC3339, written)
	if err != nil {
		return source{}, fmt.Errorf("read the date of commit %s: %w", commit, err)
	}
	return source{Version: version, Dir: dir, Commit: commit, Date: date.UTC()}, nil
}

// checkTag returns an error if the version is the tag of another commit.
func checkTag(ctx context.Context, repository, version, commit string) error {
	tagged, err := git(ctx, repository, "rev-parse", "--quiet", "--verify", "refs/tags/"+version+"^{commit}")
	if exit := new(exec.ExitError); errors.As(err, &exit) { // There is no such tag.
		return nil
	}
	if err == nil && tagged != commit {
		return fmt.Errorf("%s is the tag of commit %s, and the checkout is at %s", version, tagged, commit)
	}
	return err
}

// git runs git in a directory and returns what it prints.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	args = append([]string{"-C", dir}, args...)
	cmd := exec.CommandContext(ctx, "git", args...) // #nosec G204 -- The repository and the version are the caller's.
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
