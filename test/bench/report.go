// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is one result. All ns are of a packet, above the floor, medians unless they
// say otherwise; ratios are of lvx's to another's.
type row struct {
	Case     string  `json:"case"`
	NS       float64 `json:"ns,omitempty"`
	RatioC   float64 `json:"ratio_c,omitempty"`
	RatioE   float64 `json:"ratio_e,omitempty"`
	RatioD   float64 `json:"ratio_d,omitempty"`   // lvx less b, to d
	RatioOne float64 `json:"ratio_one,omitempty"` // two CPUs to one
	Min      float64 `json:"min_ns,omitempty"`
	P25      float64 `json:"p25_ns,omitempty"`
	Floor    float64 `json:"floor_ns,omitempty"` // of the generator
	// Rivals are the others' ns.
	Rivals map[string]float64 `json:"rivals_ns,omitempty"`
	// Lost is the part of packets whose connection was not in the table.
	Lost map[string]float64 `json:"lost,omitempty"`
	// Of the control plane, one of these:
	PerSecond  float64 `json:"per_second,omitempty"`
	Bytes      float64 `json:"bytes,omitempty"`       // of a connection
	CPUPercent float64 `json:"cpu_percent,omitempty"` // of one CPU
	What       string  `json:"what,omitempty"`
}

// rowsOf turns samples into results.
func rowsOf(c contest, e entry, samples map[string]*sample) []row {
	floor := samples[floorName]
	net := func(name string, of func(*sample) []float64) float64 {
		if s := samples[name]; s != nil {
			return above(of(s), of(floor)).median
		}
		return 0
	}
	one := func(s *sample) []float64 { return s.one }
	measured := one
	if c.both {
		measured = func(s *sample) []float64 { return s.both }
	}
	lvx := above(measured(samples[lvxName]), measured(floor))
	r := row{
		Case: c.name, NS: round(lvx.median), Min: round(lvx.min), P25: round(lvx.p25),
		Floor: round(middle(measured(floor))), Rivals: map[string]float64{}, Lost: map[string]float64{},
		RatioC: ratio(lvx.median, net(plainName, measured)), RatioE: ratio(lvx.median, net(lruName, measured)),
	}
	for name, s := range samples {
		if name != floorName && name != lvxName {
			r.Rivals[name] = round(net(name, measured))
		}
		if s.lost > mayLose {
			r.Lost[name] = s.lost
		}
	}
	if c.both {
		r.RatioOne = ratio(lvx.median, net(lvxName, one))
	}
	rows := []row{r}
	if e.flows >= m && samples[lookupName] != nil && samples[limitName] != nil {
		family, flows, _ := strings.Cut(c.name, "/established/")
		rest := lvx.median - net(lookupName, one)
		rows = append(rows, row{
			Case: family + "/to_limit/" + flows, NS: round(rest), RatioD: ratio(rest, net(limitName, one)),
		})
	}
	return rows
}

func round(ns float64) float64 { return float64(int(ns*10+0.5)) / 10 }

func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return float64(int(a/b*1000+0.5)) / 1000
}

func middle(samples []float64) float64 {
	return above(samples, make([]float64, len(samples))).median
}

// writeJSON writes an array, a row a line.
func writeJSON(out io.Writer, rows []row) error {
	text := bytes.NewBufferString("[")
	for i, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		text.WriteString(map[bool]string{true: "\n", false: ",\n"}[i == 0])
		text.Write(line)
	}
	text.WriteString("\n]\n")
	_, err := out.Write(text.Bytes())
	return err
}

// writeTable writes tables in Markdown that can be read as they are.
func writeTable(out io.Writer, rows []row) error {
	packets := [][]string{{"case", "lvx ns", "min", "p25", "a", "b", "c", "d", "e", "to c", "to e", "other"}}
	control := [][]string{{"case", "what", "figure"}}
	for _, r := range rows {
		if r.What != "" {
			control = append(control, []string{r.Case, r.What, r.figure()})
			continue
		}
		cells := []string{r.Case, r.cell(lvxName, r.NS), number(r.Min, 1), number(r.P25, 1)}
		for _, name := range []string{swapName, lookupName, plainName, limitName, lruName} {
			cells = append(cells, r.cell(name, r.Rivals[name]))
		}
		packets = append(packets, append(cells, number(r.RatioC, 2), number(r.RatioE, 2), r.other()))
	}
	text := machine() + "\n"
	if len(packets) > 1 {
		text += "\n" + markdown(packets, 1)
	}
	if len(control) > 1 {
		text += "\n" + markdown(control, 2)
	}
	_, err := io.WriteString(out, text)
	return err
}

// cell is a variant's ns, and what it lost.
func (r row) cell(name string, ns float64) string {
	if lost := r.Lost[name]; lost > mayLose {
		return fmt.Sprintf("%s (%.2f%% lost)", number(ns, 1), 100*lost)
	}
	return number(ns, 1)
}

// String is a result in one line.
func (r row) String() string {
	if r.What != "" {
		return fmt.Sprintf("%-36s %14s  %s", r.Case, r.figure(), r.What)
	}
	text := fmt.Sprintf("%-36s %11s ns", r.Case, number(r.NS, 1))
	if r.RatioC > 0 {
		text += fmt.Sprintf("  to c: %.2f", r.RatioC)
	}
	if r.RatioE > 0 {
		text += fmt.Sprintf("  to e: %.2f", r.RatioE)
	}
	if other := r.other(); other != "" {
		text += "  to " + other
	}
	return text
}

// figure is a result of the control plane.
func (r row) figure() string {
	switch {
	case r.PerSecond > 0:
		return fmt.Sprintf("%.0f /s", r.PerSecond)
	case r.Bytes > 0:
		return fmt.Sprintf("%.1f B", r.Bytes)
	}
	return fmt.Sprintf("%.2f%%", r.CPUPercent)
}

// markdown makes a table of lines, the first of which is its head. So many columns
// are text, the others numbers.
func markdown(lines [][]string, texts int) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var text, rule strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			if i < texts {
				fmt.Fprintf(&text, "| %-*s ", widths[i], cell)
				fmt.Fprintf(&rule, "|%s", strings.Repeat("-", widths[i]+2))
			} else {
				fmt.Fprintf(&text, "| %*s ", widths[i], cell)
				fmt.Fprintf(&rule, "|%s:", strings.Repeat("-", widths[i]+1))
			}
		}
		text.WriteString("|\n")
		if n == 0 {
			text.WriteString(rule.String() + "|\n")
		}
	}
	return text.String()
}

// other is a ratio that is not to c or e.
func (r row) other() string {
	switch {
	case r.RatioD > 0:
		return fmt.Sprintf("d: %.2f", r.RatioD)
	case r.RatioOne > 0:
		return fmt.Sprintf("one CPU: %.2f", r.RatioOne)
	}
	return ""
}

func number(n float64, digits int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.*f", digits, n)
}

// machine says where and when.
func machine() string {
	var name unix.Utsname
	_ = unix.Uname(&name) // then without
	model := "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %s, %d CPUs, Linux %s", time.Now().UTC().Format(time.DateOnly), model, cpus(), unix.ByteSliceToString(name.Release[:]))
}

func cpus() int { return runtime.NumCPU() }

const (
	begin = "<!-- results: written by make bench -->\n"
	end   = "<!-- end of results -->\n"
)

// writeInto puts the table into a document.
func writeInto(path string, rows []row) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, begins := strings.Cut(string(text), begin)
	_, tail, ends := strings.Cut(rest, end)
	if !begins || !ends {
		return errors.New(path + " has no markers for the results")
	}
	var table bytes.Buffer
	if err := writeTable(&table, rows); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(head+begin+"\n"+table.String()+"\n"+end+tail), 0o644)
}
