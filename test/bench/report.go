package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// A report is what was measured, as it is written to a file.
type report struct {
	Machine string   `json:"machine"`
	Notes   []string `json:"notes,omitempty"`
	Drivers []string `json:"drivers"` // The first one is set against floors and limits.
	Rows    []record `json:"rows"`
}

// A record is one row of the report.
type record struct {
	Name    string          `json:"name"`
	Unit    string          `json:"unit"`
	Limit   string          `json:"limit,omitempty"`
	Floor   *stat           `json:"floor,omitempty"`
	Drivers map[string]stat `json:"drivers"`
	Ratio   *stat           `json:"ratio,omitempty"` // Of the first driver to the floor.
	Used    *stat           `json:"used,omitempty"`  // How much of the limit the first driver uses: at most 1 is good.
}

// A stat is the median of the rounds, with the least and the greatest.
type stat struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Rounds []float64 `json:"rounds"`
}

func newStat(rounds []float64) *stat {
	if len(rounds) == 0 {
		return nil
	}
	return &stat{median(rounds), slices.Min(rounds), slices.Max(rounds), rounds}
}

// newReport sums the rounds up. Rows that were not measured are left out.
func newReport(m measured, machine string, drivers, notes []string) report {
	r := report{Machine: machine, Notes: notes, Drivers: drivers}
	for _, row := range rows() {
		s := m.of(row.name)
		if len(s.values) == 0 {
			continue
		}
		one := record{Name: row.name, Unit: row.unit, Drivers: map[string]stat{}}
		one.Floor, one.Ratio = newStat(s.floor), newStat(s.ratios(drivers[0]))
		for driver, rounds := range s.values {
			one.Drivers[driver] = *newStat(rounds)
		}
		if row.limit != nil {
			one.Limit, one.Used = row.limit.text(row.unit), newStat(row.limit.used(s, drivers[0]))
		}
		r.Rows = append(r.Rows, one)
	}
	return r
}

// used is how much of the limit a driver uses in each round. A limit of 0 is used up by 0, and exceeded by 1.
func (l limit) used(s *series, driver string) (all []float64) {
	values := s.values[driver]
	if l.OfRatio {
		values = s.ratios(driver)
	}
	for _, v := range values {
		switch {
		case l.AtLeast:
			all = append(all, l.Value/v)
		case l.Value == 0:
			all = append(all, 1+v)
		default:
			all = append(all, v/l.Value)
		}
	}
	return all
}

func (l limit) text(unit string) string {
	sign := "≤"
	if l.AtLeast {
		sign = "≥"
	}
	if l.OfRatio {
		unit = "× floor"
	}
	return fmt.Sprintf("%s %g %s", sign, l.Value, unit)
}

// markdown is the report as the document has it.
func (r report) markdown() string {
	t := table.NewWriter()
	t.Style().Format.Header = text.FormatDefault
	header := table.Row{"", "unit", "floor", "limit"}
	for i, driver := range r.Drivers {
		header = append(header, driver)
		if i == 0 {
			header = append(header, "× floor", "met")
		}
	}
	t.AppendHeader(header)
	for _, one := range r.Rows {
		t.AppendRow(one.cells(r.Drivers))
	}
	return strings.Join(append([]string{r.Machine, t.RenderMarkdown()}, r.Notes...), "\n\n") + "\n"
}

func (one record) cells(drivers []string) table.Row {
	cells := table.Row{one.Name, one.Unit, one.Floor.String(), cmp.Or(one.Limit, "–")}
	for i, driver := range drivers {
		value := "–"
		if s, ok := one.Drivers[driver]; ok {
			value = s.String()
		}
		cells = append(cells, value)
		if i == 0 {
			cells = append(cells, one.Ratio.String(), one.met())
		}
	}
	return cells
}

func (one record) met() string {
	switch {
	case one.Used == nil:
		return "–"
	case one.Used.Median <= 1:
		return "yes"
	}
	return "no"
}

// String is the median, with the spread in brackets.
func (s *stat) String() string {
	switch {
	case s == nil:
		return "–"
	case len(s.Rounds) == 1:
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
}

// number has three digits that say something, or all of a whole number.
func number(f float64) string {
	switch {
	case f == math.Trunc(f):
		return fmt.Sprintf("%.0f", f)
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	case f >= 1:
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.3f", f)
}

// save writes the numbers, the drawing, and the document's table, where they are wanted.
func (r report) save(o options) error {
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("write the numbers: %w", err)
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the numbers: %w", err)
		}
	}
	if o.svg != "" {
		if err := r.draw(o.svg); err != nil {
			return fmt.Errorf("draw: %w", err)
		}
	}
	if o.document != "" {
		return r.insert(o.document)
	}
	return nil
}

// The lines of the document between which the report stands.
const (
	begins = "<!-- make bench-quick writes what follows -->\n"
	ends   = "<!-- make bench-quick wrote this -->\n"
)

// insert puts the report in its place in the document.
func (r report) insert(document string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	before, rest, found := bytes.Cut(text, []byte(begins))
	_, after, foundEnd := bytes.Cut(rest, []byte(ends))
	if !found || !foundEnd {
		return fmt.Errorf("write the table: %s has no place for it", document)
	}
	text = slices.Concat(before, []byte(begins+"\n"+r.markdown()+"\n"+ends), after)
	return os.WriteFile(document, text, 0o644)
}

func milli(d time.Duration) float64 { return d.Seconds() * 1000 }

func milliseconds(all []time.Duration) (ms []float64) {
	for _, d := range all {
		ms = append(ms, milli(d))
	}
	return ms
}

func median(of []float64) float64 {
	sorted, half := slices.Sorted(slices.Values(of)), len(of)/2
	if len(of)%2 == 0 {
		return (sorted[half-1] + sorted[half]) / 2
	}
	return sorted[half]
}
