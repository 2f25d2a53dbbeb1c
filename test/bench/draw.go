package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// draw draws how much of each limit the first driver uses.
func (r report) draw(path string) error {
	p := plot.New()
	p.Title.Text = "How much of each limit " + r.Drivers[0].Driver + " uses (less is better; 1 is the limit)"
	p.X.Min = 0
	p.Y.Tick.Label.Font.Size = vg.Points(8)
	p.Y.Padding = vg.Points(50) // A viewer that lacks the font takes a wider one.
	rows := r.rows()
	slices.Reverse(rows) // The first one comes on top.
	var used plotter.Values
	var names []string
	for _, row := range rows {
		used = append(used, row.used())
		names = append(names, fmt.Sprintf("%s %s %s", row.Name, number(row.Values[0]), row.Unit))
	}
	bars, err := plotter.NewBarChart(used, vg.Points(14))
	if err != nil {
		return err
	}
	bars.Horizontal = true
	bars.LineStyle.Width = 0
	bars.Color = color.RGBA{R: 0x2b, G: 0x7a, B: 0x78, A: 0xff}
	limit, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(rows)) - 0.5}})
	if err != nil {
		return err
	}
	limit.Color = color.RGBA{R: 0xb0, A: 0xff}
	p.Add(bars, limit)
	p.NominalY(names...)
	return p.Save(26*vg.Centimeter, 11*vg.Centimeter, path)
}
