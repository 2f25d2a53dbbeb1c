package main

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// unasserted is SPDX's word for what a document does not say.
const unasserted = "NOASSERTION"

// writeSBOM writes which program of which image has which modules, in SPDX 2.3. It says what the programs themselves
// say: the go command writes the modules that it links into them.
func (s source) writeSBOM(images []image, chart file, programs []program, out string) (file, error) {
	b := s.newBill()
	for _, i := range images {
		of := b.add(common.TypeRelationshipDescribe, "DOCUMENT", &spdx.Package{
			PackageName: i.Name, PackageVersion: s.Version, PackageFileName: i.Archive.Name,
			PackageChecksums: sha256sum(i.Digest), PrimaryPackagePurpose: "CONTAINER",
			PackageExternalReferences: purl("oci/" + i.Name + "@sha256%3A" + i.Digest),
		})
		for _, p := range programs {
			if p.Name == i.Name {
				b.addProgram(of, p)
			}
		}
	}
	b.add(common.TypeRelationshipDescribe, "DOCUMENT", &spdx.Package{
		PackageName: "mayfly-chart", PackageVersion: s.number(), PackageFileName: chart.Name,
		PackageChecksums: sha256sum(chart.Digest), PrimaryPackagePurpose: "ARCHIVE",
	})
	var text bytes.Buffer
	if err := spdxjson.Write(b.document, &text, spdxjson.Indent("  ")); err != nil {
		return file{}, err
	}
	return writeFile(out, fmt.Sprintf("mayfly-%s.spdx.json", s.number()), text.Bytes())
}

// A bill is an SBOM that is being written.
type bill struct {
	document *spdx.Document
	known    map[common.ElementID]bool
}

// newBill returns an SBOM without packages. Its time is that of the commit.
func (s source) newBill() *bill {
	return &bill{known: map[common.ElementID]bool{}, document: &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      "mayfly-" + s.number(),
		DocumentNamespace: home + "/spdx/" + s.Version + "/" + s.Commit,
		CreationInfo: &spdx.CreationInfo{
			Created:  s.Date.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "github.com/mayfly-csi/mayfly/tools/release"}},
		},
	}}
}

// addProgram adds the program of one platform to an image, and the modules to it.
func (b *bill) addProgram(of common.ElementID, p program) {
	program := b.add(common.TypeRelationshipContains, of, &spdx.Package{
		PackageName: p.Name + "-" + p.OS + "-" + p.Arch, PackageVersion: p.Info.Main.Version,
		PackageFileName:  "/" + p.Name,
		PackageChecksums: sha256sum(digest(p.Content)), PrimaryPackagePurpose: "APPLICATION",
	})
	b.addModule(program, p.Info.Main)
	b.addModule(program, debug.Module{Path: "stdlib", Version: strings.TrimPrefix(p.Info.GoVersion, "go")})
	for _, m := range p.Info.Deps {
		for m.Replace != nil {
			m = m.Replace
		}
		b.addModule(program, *m)
	}
}

// addModule adds a Go module to a program.
func (b *bill) addModule(of common.ElementID, m debug.Module) {
	b.add(common.TypeRelationshipDependsOn, of, &spdx.Package{
		PackageName: m.Path, PackageVersion: m.Version, PrimaryPackagePurpose: "LIBRARY",
		PackageExternalReferences: purl("golang/" + m.Path + "@" + m.Version),
	})
}

// add adds a package once, and a relation to it, and returns what it is called in the document.
func (b *bill) add(relation string, from common.ElementID, p *spdx.Package) common.ElementID {
	name := notOfID().ReplaceAllString(p.PackageName+"-"+p.PackageVersion, "-")
	id := common.ElementID(strings.ToLower(p.PrimaryPackagePurpose) + "-" + name)
	if !b.known[id] {
		b.known[id] = true
		p.PackageSPDXIdentifier = id
		p.PackageDownloadLocation, p.PackageCopyrightText = unasserted, unasserted
		p.PackageLicenseConcluded, p.PackageLicenseDeclared = unasserted, unasserted
		if strings.HasPrefix(p.PackageName, "mayfly") || p.PackageName == modulePath {
			p.PackageLicenseDeclared = "Apache-2.0"
		}
		b.document.Packages = append(b.document.Packages, p)
	}
	b.document.Relationships = append(b.document.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(from)), Relationship: relation,
		RefB: common.MakeDocElementID("", string(id)),
	})
	return id
}

// notOfID matches what a name in an SPDX document can't have.
func notOfID() *regexp.Regexp { return regexp.MustCompile(`[^A-Za-z0-9.-]+`) }

func sha256sum(digest string) []common.Checksum {
	return []common.Checksum{{Algorithm: common.SHA256, Value: digest}}
}

// purl returns the reference by which scanners know a package.
func purl(locator string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{
		Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: "pkg:" + locator,
	}}
}
