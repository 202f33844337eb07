// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
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

// paint wraps the text, which goes to Out, in the colour.
func (e *Env) paint(c colour, text string) string { return e.paintOn(e.Terminal, c, text) }

// paintErr wraps the text, which goes to Err, in the colour.
func (e *Env) paintErr(c colour, text string) string { return e.paintOn(e.ErrTerminal, c, text) }

// paintOn wraps the text in the colour, if it goes to a terminal that has colours
// and NO_COLOR (no-color.org) does not forbid them.
func (e *Env) paintOn(terminal bool, c colour, text string) string {
	if c == plain || !terminal || e.Getenv("NO_COLOR") != "" || e.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// printable returns the text with what would move a terminal's cursor, or change
// its colours, written as \x1b: names of files and users come from others.
func printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var clean strings.Builder
	for _, r := range text {
		if unprintable(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			clean.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		clean.WriteRune(r)
	}
	return clean.String()
}

// unprintable is false for the arrows and bars that lvx prints itself.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// grouped returns for instance "1,234,567".
func grouped(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// counted returns for instance "1 service" or "1,234 services".
func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + many
}

// moment returns a time of the day and its date, where the reader is.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
	right  bool // numbers stand on the right
}

func word(text string) cell { return cell{text: printable(text)} }

// name is a word that may lack.
func name(text string) cell {
	if text == "" {
		text = "-"
	}
	return word(text)
}

func coloured(c colour, text string) cell { return cell{text: printable(text), colour: c} }

func number[N uint16 | uint32 | uint64](n N) cell {
	return cell{text: strconv.FormatUint(uint64(n), 10), right: true}
}

// rate is a number of things a second.
func rate(perSecond float64) cell {
	return cell{text: strconv.FormatFloat(perSecond, 'f', 1, 64), right: true}
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
