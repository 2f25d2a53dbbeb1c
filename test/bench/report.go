package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// A report is what was measured.
type report struct {
	SystemCalls time.Duration // The floor of one volume, on one core.
	Unpublish   time.Duration // The floor of taking volumes away, at once: median of the system calls.
	Serial      time.Duration // The floor of one request: median.
	Rate        float64       // The floor: requests a second.
	Client      time.Duration // What one of these requests costs a bare client on the processor.
	Local       float64       // Volumes a second with the local signer; 0: not measured.
	Push        time.Duration // Until all volumes have other CA certificates: median; 0: not measured.
	Drivers     []numbers

	rates   []float64
	clients []time.Duration
}

// A row is one number and what it should be.
type row struct {
	Name    string
	Unit    string
	Values  []float64 // By drivers.
	Floor   float64   // NaN: it has none.
	Limit   float64   // Of the first driver's value, or of its ratio to the floor.
	OfRatio bool
	AtLeast bool // The limit is the least value, not the greatest.
}

func (r report) rows() []row {
	values := func(f func(numbers) float64) (all []float64) {
		for _, d := range r.Drivers {
			all = append(all, f(d))
		}
		return all
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	system, none := ms(r.SystemCalls), math.NaN()
	rows := []row{
		{"publish, one by one: median", "ms", values(func(n numbers) float64 { return ms(n.Serial) }), ms(r.Serial), 1.3, true, false},
		{"publish, at once: rate", "/s", values(func(n numbers) float64 { return n.Rate }), r.Rate, 0.9, true, true},
		{"publish: processor time of the driver", "ms", values(func(n numbers) float64 { return ms(n.CPU) }), system, 2, false, false},
		{"publish again, one by one: median", "ms", values(func(n numbers) float64 { return ms(n.Republish) }), system, 0.5, false, false},
		{"publish again, at once: median", "ms", values(func(n numbers) float64 { return ms(n.RepublishAtOnce) }), system, 3, false, false},
		{"unpublish, at once: median", "ms", values(func(n numbers) float64 { return ms(n.UnpublishAtOnce) }), ms(r.Unpublish), 10, false, false},
		{"volumes held: processor", "% of a core", values(func(n numbers) float64 { return n.HeldCPU * 100 }), none, 0.1, false, false},
		{"volumes held: memory, resident", "MiB", values(func(n numbers) float64 { return n.HeldMemory / (1 << 20) }), none, 45, false, false},
	}
	if r.Push > 0 {
		rows = append(rows, row{"CA certificates changed: until all volumes have them", "ms", []float64{ms(r.Push)}, none, 2000, false, false})
	}
	if r.Local > 0 {
		rows = append(rows, row{"local signer, at once: rate", "/s", []float64{r.Local}, 1000 / system, 800, false, true})
	}
	return rows
}

// share is the first driver's value as a multiple of the floor.
func (r row) share() float64 { return r.Values[0] / r.Floor }

// used is how much of its limit the first driver uses: at most 1 is good.
func (r row) used() float64 {
	value := r.Values[0]
	if r.OfRatio {
		value = r.share()
	}
	if r.AtLeast {
		return r.Limit / value
	}
	return value / r.Limit
}

func (r row) limit() string {
	sign, unit := "≤", " "+r.Unit
	if r.AtLeast {
		sign = "≥"
	}
	if r.OfRatio {
		unit = " × floor"
	}
	return fmt.Sprintf("%s %g%s", sign, r.Limit, unit)
}

// print shows the table.
func (r report) print(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.Style().Format.Header = text.FormatDefault
	header := table.Row{"", "unit", "floor", "limit"}
	for i, d := range r.Drivers {
		header = append(header, d.Driver)
		if i == 0 {
			header = append(header, "× floor", "met")
		}
	}
	t.AppendHeader(header)
	for _, row := range r.rows() {
		t.AppendRow(row.cells())
	}
	t.RenderMarkdown()
	fmt.Fprintf(w, "\nThe floor's own client spends %s ms on the processor for each request; a volume takes %s ms of bare system calls.\n",
		number(r.Client.Seconds()*1000), number(r.SystemCalls.Seconds()*1000))
	for _, d := range r.Drivers {
		fmt.Fprintf(w, "\n%s: %d calls had to be made again.\n", d.Driver, d.Refused)
	}
}

func (r row) cells() table.Row {
	cells := table.Row{r.Name, r.Unit, number(r.Floor), r.limit()}
	for i, value := range r.Values {
		cells = append(cells, number(value))
		if i == 0 {
			cells = append(cells, number(r.share()), map[bool]string{true: "yes", false: "no"}[r.used() <= 1])
		}
	}
	return cells
}

// number has three digits that say something.
func number(f float64) string {
	switch {
	case math.IsNaN(f):
		return "–"
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.3f", f)
}

// A record is a row as it is written to a file.
type record struct {
	Name    string             `json:"name"`
	Unit    string             `json:"unit"`
	Floor   *float64           `json:"floor,omitempty"`
	Limit   string             `json:"limit"`
	Met     bool               `json:"met"` // By the first driver.
	Drivers map[string]float64 `json:"drivers"`
}

func (r report) records() (all []record) {
	for _, row := range r.rows() {
		one := record{Name: row.Name, Unit: row.Unit, Limit: row.limit(), Met: row.used() <= 1, Drivers: map[string]float64{}}
		if !math.IsNaN(row.Floor) {
			one.Floor = &row.Floor
		}
		for i, value := range row.Values {
			one.Drivers[r.Drivers[i].Driver] = value
		}
		all = append(all, one)
	}
	return all
}

// save writes the numbers and the drawing, where they are wanted.
func (r report) save(o options) error {
	if o.json != "" {
		text, err := json.MarshalIndent(r.records(), "", "  ")
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
	return nil
}
