package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A jsonSchema is one of JSON Schema, as far as values need it.
type jsonSchema = map[string]any

// A value is one of values.yaml, with what its comment says.
type value struct {
	node    *yaml.Node
	comment string
}

var (
	description = regexp.MustCompile(`(?m)^# -- (?:\((\w+)\) )?(.*)$`)
	addition    = regexp.MustCompile(`(?m)^# @schema (.*)$`)
	isOpen      = regexp.MustCompile(`(?m)^# @open$`)
)

// parse reads the values of the chart, in their order.
func parse(repository string) (*yaml.Node, error) {
	text, err := os.ReadFile(filepath.Join(dir(repository), "values.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the values: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read the values: %w", err)
	}
	return document.Content[0], nil
}

// Schema returns the schema of the chart's values.
func Schema(repository string) (string, error) {
	values, err := parse(repository)
	if err != nil {
		return "", err
	}
	s, err := ofSection(values, true)
	if err != nil {
		return "", err
	}
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(s); err != nil {
		return "", fmt.Errorf("write the schema: %w", err)
	}
	return text.String(), nil
}

// Known returns the paths of all values, one a line; those of sections end with a dot.
func Known(repository string) (string, error) {
	values, err := parse(repository)
	if err != nil {
		return "", err
	}
	return strings.Join(known(values, ""), "\n") + "\n", nil
}

func known(section *yaml.Node, at string) (paths []string) {
	for key, v := range values(section) {
		if path := at + key; v.isSection() {
			paths = append(append(paths, path+"."), known(v.node, path+".")...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

// values yields the values of a section.
func values(section *yaml.Node) func(func(string, value) bool) {
	return func(yield func(string, value) bool) {
		for i := 0; i < len(section.Content); i += 2 {
			if key := section.Content[i]; !yield(key.Value, value{section.Content[i+1], key.HeadComment}) {
				return
			}
		}
	}
}

// isSection reports whether the value has values of its own: an object that no comment describes.
func (v value) isSection() bool {
	return v.node.Kind == yaml.MappingNode && !description.MatchString(v.comment)
}

func ofSection(section *yaml.Node, open bool) (jsonSchema, error) {
	properties := jsonSchema{}
	for key, v := range values(section) {
		s, err := v.schema()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		properties[key] = s
	}
	s := jsonSchema{"type": "object", "properties": properties}
	if !open {
		s["additionalProperties"] = false
	}
	return s, nil
}

func (v value) schema() (jsonSchema, error) {
	if v.isSection() {
		return ofSection(v.node, isOpen.MatchString(v.comment))
	}
	said := description.FindStringSubmatch(v.comment)
	if said == nil {
		return nil, fmt.Errorf("no comment says what it is")
	}
	s := jsonSchema{"description": said[2]}
	kinds := map[string]string{
		"!!str": "string", "!!bool": "boolean", "!!int": "integer", "!!map": "object", "!!seq": "array",
	}
	if kind := kinds[v.node.Tag]; kind != "" {
		s["type"] = kind
	}
	for _, more := range addition.FindAllStringSubmatch(v.comment, -1) {
		if err := json.Unmarshal([]byte(more[1]), &s); err != nil {
			return nil, fmt.Errorf("%s: %w", more[1], err)
		}
	}
	if s["type"] == nil {
		return nil, fmt.Errorf("neither the default nor @schema says its type")
	}
	return s, nil
}
