// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// colour is what a cell says beyond its text. On anything but a terminal it
// says nothing.
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// paint wraps the text in the colour, if Out is a terminal that has colours
// and NO_COLOR (no-color.org) does not forbid them.
func (e *Env) paint(c colour, text string) string {
	if c == plain || !e.Terminal || e.Getenv("NO_COLOR") != "" || e.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
	right  bool // numbers stand on the right
}

func word(text string) cell { return cell{text: text} }

func coloured(c colour, text string) cell { return cell{text: text, colour: c} }

func number[N uint16 | uint32 | uint64](n N) cell {
	return cell{text: strconv.FormatUint(uint64(n), 10), right: true}
}

// pageRows is how many rows are laid out together. A longer table is written
// page by page, its columns never narrower than on the page before.
const pageRows = 1000

// table lays out rows in columns. Columns are two spaces apart; the last one is
// not padded.
type table struct {
	env    *Env
	rows   [][]cell
	widths []int
}

// newTable returns a table with this heading.
func (e *Env) newTable(heading ...string) *table {
	row := make([]cell, len(heading))
	for i, text := range heading {
		row[i] = coloured(bold, text)
	}
	return &table{env: e, rows: [][]cell{row}, widths: make([]int, len(heading))}
}

// add adds a row. It has as many cells as the heading.
func (t *table) add(row ...cell) error {
	t.alignHeading(row)
	t.rows = append(t.rows, row)
	if len(t.rows) < pageRows {
		return nil
	}
	return t.flush()
}

// alignHeading puts the heading over numbers on the right as well.
func (t *table) alignHeading(row []cell) {
	if len(t.rows) != 1 {
		return
	}
	for i := range row {
		t.rows[0][i].right = row[i].right
	}
}

// flush writes the rows that were added.
func (t *table) flush() error {
	for _, row := range t.rows {
		for i, c := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var page strings.Builder
	for _, row := range t.rows {
		t.layOut(&page, row)
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(t.env.Out, page.String())
	return err
}

func (t *table) layOut(page *strings.Builder, row []cell) {
	for i, c := range row {
		space := strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c.text))
		text := t.env.paint(c.colour, c.text)
		switch {
		case c.right:
			page.WriteString(space + text)
		case i == len(row)-1:
			page.WriteString(text)
		default:
			page.WriteString(text + space)
		}
		if i < len(row)-1 {
			page.WriteString("  ")
		}
	}
	page.WriteString("\n")
}
