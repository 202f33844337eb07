// SPDX-License-Identifier: Apache-2.0

// Bench measures what a packet costs in lvx's data plane, next to other programs
// that do less, or the same in another way, all in one run: docs/performance.md
// says what they are and how to read the table.
//
// It is not for judging whether lvx is right: a packet that does not take the way
// that a case is about only makes the case fail.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"
)

// options say what to measure.
type options struct {
	quick  bool
	json   bool
	only   *regexp.Regexp
	rounds int
	into   string // a document that has the table between markers
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err == nil {
		err = enter(func() error { return run(o, os.Stdout, os.Stderr) })
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "the ratios that matter, in less than a minute")
	flags.BoolVar(&o.json, "json", false, "write JSON instead of a table")
	only := flags.String("run", "", "measure only the cases that match this regular expression")
	flags.IntVar(&o.rounds, "rounds", 0, "rounds of each case, 9 at least (default 9 if quick, else 15)")
	flags.StringVar(&o.into, "into", "", "write the table into this document as well, between its markers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.rounds == 0 {
		o.rounds = 15
		if o.quick {
			o.rounds = 9
		}
	}
	if o.rounds < 9 {
		return o, errors.New("-rounds: 9 at least, for a median that means something")
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

// run measures, and writes the results to out. Cases that fail are told on
// progress, and the others measured all the same.
func run(o options, out, progress io.Writer) error {
	b, err := newBench(o, progress)
	if err != nil {
		return err
	}
	defer b.close()
	start := time.Now()
	failed := b.measure(plans(o))
	if !o.quick {
		failed = errors.Join(failed, b.measureControl())
	}
	fmt.Fprintf(progress, "%d results in %s\n", len(b.rows), time.Since(start).Round(time.Second))
	if o.json {
		err = writeJSON(out, b.rows)
	} else {
		err = writeTable(out, b.rows)
	}
	if o.into != "" {
		err = errors.Join(err, writeInto(o.into, b.rows))
	}
	return errors.Join(err, failed)
}
