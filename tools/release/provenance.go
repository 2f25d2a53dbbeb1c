package main

import (
	"encoding/json"
	"fmt"

	provenancev1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	statementv1 "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Where the documents say how a release is made, and by what.
const (
	buildType = home + "/blob/main/CONTRIBUTING.md#make-a-release"
	builderID = home + "/tree/main/tools/release"
)

// writeProvenance writes the statement how the files and images were made: SLSA's provenance, which is not signed yet.
// It has nothing of the machine or the time, so that who rebuilds the release gets the same one.
func (s source) writeProvenance(images []image, files []file, programs []program, out string) (file, error) {
	predicate, err := s.provenance(programs)
	if err != nil {
		return file{}, err
	}
	statement := &statementv1.Statement{
		Type: statementv1.StatementTypeUri, PredicateType: "https://slsa.dev/provenance/v1", Predicate: predicate,
	}
	subject := func(name, digest string) {
		statement.Subject = append(statement.Subject, &statementv1.ResourceDescriptor{
			Name: name, Digest: map[string]string{"sha256": digest},
		})
	}
	for _, i := range images {
		subject(i.Name+":"+s.Version, i.Digest)
	}
	for _, f := range files {
		subject(f.Name, f.Digest)
	}
	if err := statement.Validate(); err != nil {
		return file{}, err
	}
	text, err := stableJSON(statement)
	if err != nil {
		return file{}, err
	}
	return writeFile(out, fmt.Sprintf("mayfly-%s.intoto.json", s.number()), text)
}

// provenance returns SLSA's predicate.
func (s source) provenance(programs []program) (*structpb.Struct, error) {
	var platforms []any
	for _, p := range programs {
		if p.Name == contents()[0].Name {
			platforms = append(platforms, p.OS+"/"+p.Arch)
		}
	}
	external, err := structpb.NewStruct(map[string]any{"version": s.Version, "platforms": platforms})
	if err != nil {
		return nil, err
	}
	internal, err := structpb.NewStruct(map[string]any{"go": programs[0].Info.GoVersion})
	if err != nil {
		return nil, err
	}
	p := &provenancev1.Provenance{
		BuildDefinition: &provenancev1.BuildDefinition{
			BuildType: buildType, ExternalParameters: external, InternalParameters: internal,
			ResolvedDependencies: []*statementv1.ResourceDescriptor{{
				Uri:    "git+" + home + "@refs/tags/" + s.Version,
				Digest: map[string]string{"gitCommit": s.Commit},
			}},
		},
		RunDetails: &provenancev1.RunDetails{Builder: &provenancev1.Builder{Id: builderID}},
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	predicate := &structpb.Struct{}
	return predicate, protojson.Unmarshal(text, predicate)
}

// stableJSON returns a message as JSON with its keys in order: protojson's spaces differ from one binary to another.
func stableJSON(m proto.Message) ([]byte, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return nil, err
	}
	stable, err := json.MarshalIndent(value, "", "  ")
	return append(stable, '\n'), err
}
