package benchrig

import (
	"fmt"
	"io"
	"slices"
)

// Figures are what one measure was, each time.
type Figures []float64

// Median of figures, of which there is one at least.
func (f Figures) Median() float64 {
	sorted := slices.Sorted(slices.Values(f))
	return sorted[len(sorted)/2]
}

// Scaled returns all figures times by.
func (f Figures) Scaled(by float64) Figures {
	out := make(Figures, len(f))
	for i, x := range f {
		out[i] = x * by
	}
	return out
}

// Header begins a table of rows.
func Header(out io.Writer) {
	fmt.Fprintf(out, "| measure | goal | median | min | max |\n|---|---|---|---|---|\n")
}

// Row prints one measure's figures beside what the project wants of it, or
// nothing where the figure only explains another.
func Row(out io.Writer, name, goal, unit string, figures Figures) {
	format := func(f float64) string { return fmt.Sprintf("%.4g %s", f, unit) }
	fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", name, goal, format(figures.Median()), format(slices.Min(figures)), format(slices.Max(figures)))
}
