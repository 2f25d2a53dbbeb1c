package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// The bars of the drawing: for each row its median, with a line from the least round to the greatest.
type bars struct {
	plotter.XYs
	plotter.XErrors
	medians plotter.Values
	names   []string
}

// bars are the rows that have a limit, the first one on top.
func (r report) bars() (all bars) {
	for _, one := range slices.Backward(r.Rows) {
		if one.Used == nil {
			continue
		}
		used := one.Used
		all.XYs = append(all.XYs, plotter.XY{X: used.Median, Y: float64(len(all.medians))})
		all.XErrors = append(all.XErrors, struct{ Low, High float64 }{used.Median - used.Min, used.Max - used.Median})
		all.medians = append(all.medians, used.Median)
		all.names = append(all.names, fmt.Sprintf("%s %s %s", one.Name, number(one.Drivers[r.Drivers[0]].Median), one.Unit))
	}
	return all
}

// draw draws how much of each limit the first driver uses.
func (r report) draw(path string) error {
	p := plot.New()
	p.Title.Text = "How much of each limit " + r.Drivers[0] + " uses (less is better; 1 is the limit)"
	p.X.Min = 0
	p.Y.Tick.Label.Font.Size = vg.Points(8)
	p.Y.Padding = vg.Points(50) // A viewer that lacks the font takes a wider one.
	all := r.bars()
	medians, err := plotter.NewBarChart(all.medians, vg.Points(14))
	if err != nil {
		return err
	}
	medians.Horizontal = true
	medians.LineStyle.Width = 0
	medians.Color = color.RGBA{R: 0x2b, G: 0x7a, B: 0x78, A: 0xff}
	spread, err := plotter.NewXErrorBars(all)
	if err != nil {
		return err
	}
	limit, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(all.medians)) - 0.5}})
	if err != nil {
		return err
	}
	limit.Color = color.RGBA{R: 0xb0, A: 0xff}
	p.Add(medians, spread, limit)
	p.NominalY(all.names...)
	return p.Save(26*vg.Centimeter, 11*vg.Centimeter, path)
}
