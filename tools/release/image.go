package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A content is what an image holds: the program of its name, and what the program does where nobody says otherwise.
// The Dockerfile has the same.
type content struct{ Name, Command string }

func contents() []content { return []content{{"mayfly", "node"}, {"mayfly-controller", "run"}} }

// An image is one of the release: the digest of its index of platforms, and the archive that has it.
type image struct {
	Name    string
	Digest  string
	Archive file
}

// writeImages writes an archive for each image.
func (s source) writeImages(programs []program, out string) ([]image, error) {
	var images []image
	for _, c := range contents() {
		index, err := s.index(c, programs)
		if err != nil {
			return nil, err
		}
		sum, err := index.Digest()
		if err != nil {
			return nil, err
		}
		archive, err := s.archive(c.Name, index)
		if err != nil {
			return nil, err
		}
		f, err := writeFile(out, fmt.Sprintf("%s-image-%s.tar", c.Name, s.number()), archive)
		if err != nil {
			return nil, err
		}
		images = append(images, image{Name: c.Name, Digest: sum.Hex, Archive: f})
	}
	return images, nil
}

// index returns the index of an image: an image for each platform of its program.
func (s source) index(c content, programs []program) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		if p.Name != c.Name {
			continue
		}
		one, err := s.image(c, p)
		if err != nil {
			return nil, err
		}
		platform := v1.Descriptor{Platform: &v1.Platform{OS: p.OS, Architecture: p.Arch}}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: platform})
	}
	return mutate.Annotations(index, s.annotations(c)).(v1.ImageIndex), nil
}

// image returns the image of one platform: a layer with the program and nothing else.
func (s source) image(c content, p program) (v1.Image, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := s.add(w, p.Name, 0o755, p.Content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }
	l, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	base, err = mutate.ConfigFile(base, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Arch, Created: v1.Time{Time: s.Date}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: []string{"/" + p.Name}, Cmd: []string{c.Command}, Labels: s.annotations(c)},
	})
	if err != nil {
		return nil, err
	}
	history := v1.History{Created: v1.Time{Time: s.Date}, CreatedBy: "COPY " + p.Name + " /" + p.Name}
	one, err := mutate.Append(base, mutate.Addendum{Layer: l, History: history})
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(one, s.annotations(c)).(v1.Image), nil
}

// annotations returns what registries and scanners show of an image.
func (s source) annotations(c content) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    c.Name,
		"org.opencontainers.image.version":  s.Version,
		"org.opencontainers.image.revision": s.Commit,
		"org.opencontainers.image.created":  s.Date.Format(time.RFC3339),
		"org.opencontainers.image.source":   home,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

// archive returns an OCI layout of one index as a tar file. Its names are that for containerd, which is the one that
// containerd reads in a manifest's `mayfly:v0.1.0`, and the tag.
func (s source) archive(name string, index v1.ImageIndex) ([]byte, error) {
	named, err := reference.ParseNormalizedNamed(name + ":" + s.Version)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mayfly-layout-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, err
	}
	names := map[string]string{
		"io.containerd.image.name":          named.String(),
		"org.opencontainers.image.ref.name": s.Version,
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return nil, err
	}
	return s.tarball(dir)
}

// tarball returns the files of a directory as a tar file.
func (s source) tarball(dir string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path) // #nosec G304 G122 -- Nobody else writes there.
		if err != nil {
			return err
		}
		return s.add(w, filepath.ToSlash(name), 0o644, data)
	})
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// add adds a file of root's to a tar file, with the time of the commit.
func (s source) add(w *tar.Writer, name string, mode int64, data []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: s.Date}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
