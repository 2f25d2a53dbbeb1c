package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"gonum.org/v1/gonum/stat"
)

// maxMemory is what a controller may take.
const maxMemory = 120 << 20

// A report is what was measured.
type report struct {
	Crowd     int    `json:"crowd"`
	OneByOne  []row  `json:"oneByOne"`
	AtOnce    []row  `json:"atOnce"`
	Throttled int    `json:"throttled"` // Requests that client-go held back.
	Memory    memory `json:"memory"`
}

// A row is how long certificates took in one mode, in seconds.
type row struct {
	Mode   string  `json:"mode"`
	N      int     `json:"n"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99"`
	Last   float64 `json:"last"`            // Of a round: median.
	Ratio  float64 `json:"ratio"`           // Of the median to that of the first mode.
	Limit  float64 `json:"limit,omitempty"` // Of the ratio; 0: none.
	Met    bool    `json:"met"`
}

func rows(modes []*mode, measured []series, limit func(*mode) float64) (all []row) {
	for i, m := range modes {
		s := measured[i]
		r := row{Mode: m.name, N: len(s.each), Median: quantile(0.5, s.each), P99: quantile(0.99, s.each), Last: quantile(0.5, s.last), Limit: limit(m)}
		r.Ratio = r.Median / quantile(0.5, measured[0].each)
		r.Met = r.Limit == 0 || r.Ratio <= r.Limit
		all = append(all, r)
	}
	return all
}

func quantile(p float64, values []float64) float64 {
	return stat.Quantile(p, stat.Empirical, slices.Sorted(slices.Values(values)), nil)
}

// print shows the tables.
func (r report) print(w io.Writer) {
	one := newTable(w, "one by one", "n", "median", "p99", "× the first", "limit", "met")
	for _, row := range r.OneByOne {
		limit, met := row.limit()
		one.AppendRow(table.Row{row.Mode, row.N, ms(row.Median), ms(row.P99), fmt.Sprintf("%.2f", row.Ratio), limit, met})
	}
	one.RenderMarkdown()
	fmt.Fprintln(w)
	many := newTable(w, fmt.Sprintf("%d at once", r.Crowd), "n", "median", "p99", "× the first", "limit", "met", "the last of a round, median")
	for _, row := range r.AtOnce {
		limit, met := row.limit()
		many.AppendRow(table.Row{row.Mode, row.N, seconds(row.Median), seconds(row.P99), fmt.Sprintf("%.2f", row.Ratio), limit, met, seconds(row.Last)})
	}
	many.RenderMarkdown()
	fmt.Fprintf(w, "\nAll certificates were issued. client-go held %d requests back; the limit is 0. Met: %s.\n", r.Throttled, yes(r.Throttled == 0))
	if m := r.Memory; m.Pods > 0 {
		fmt.Fprintf(w, "\nWith %d pods, and as many CertificateRequests and PodCertificateRequests of others, a controller had %.0f MiB resident, and %.0f MiB at its peak; the limit is %d MiB. Met: %s.\n",
			m.Pods, m.Resident/(1<<20), m.Peak/(1<<20), maxMemory>>20, yes(m.Peak <= maxMemory))
	}
}

// limit is the row's limit, and whether it is met, for a table.
func (r row) limit() (limit, met string) {
	if r.Limit == 0 {
		return "–", "–"
	}
	return fmt.Sprintf("≤ %g", r.Limit), yes(r.Met)
}

func newTable(w io.Writer, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(header)
	return t
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

func ms(s float64) string { return fmt.Sprintf("%.1f ms", s*1000) }

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }

// save writes the numbers to a file, if one is named.
func (r report) save(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the numbers: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
