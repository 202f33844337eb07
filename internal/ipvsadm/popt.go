// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import "strings"

// argument tells what follows an option.
type argument int

const (
	none     argument = iota
	required          // the rest of the word, or the next word whatever it is
	optional          // the rest of the word, or the next one if it is no option
)

// words walks a command line as libpopt does: options and other words may be
// mixed, short options may be bundled, "--" ends the options.
type words struct {
	args   []string
	next   int    // index of the first word not yet taken
	bundle string // what is left of a word of short options
	rest   []string
}

// found is one option on the command line.
type found struct {
	*entry
	value string
	given bool // value was given: only an optional argument may be missing
}

// option returns the next option, or nil when there is none left. What is no
// option collects in w.rest.
func (w *words) option() (*found, error) {
	for w.bundle == "" {
		if w.next == len(w.args) {
			return nil, nil
		}
		word := w.args[w.next]
		w.next++
		switch {
		case word == "--":
			w.rest = append(w.rest, w.args[w.next:]...)
			w.next = len(w.args)
		case strings.HasPrefix(word, "--"):
			return w.long(word[2:])
		case len(word) > 1 && word[0] == '-':
			w.bundle = word[1:]
		default:
			w.rest = append(w.rest, word)
		}
	}
	return w.short()
}

func (w *words) long(word string) (*found, error) {
	name, value, given := strings.Cut(word, "=")
	e := longEntry(name)
	switch {
	case e == nil:
		return nil, w.bad("unknown option")
	case e.argument == none && given:
		return nil, w.bad("option does not take an argument")
	case e.argument == none || given:
		return &found{entry: e, value: value, given: given}, nil
	}
	return w.value(e)
}

func (w *words) short() (*found, error) {
	e := shortEntry(w.bundle[0])
	if e == nil {
		return nil, w.bad("unknown option")
	}
	w.bundle = w.bundle[1:]
	if e.argument == none {
		if strings.HasPrefix(w.bundle, "=") {
			return nil, w.bad("option does not take an argument")
		}
		return &found{entry: e}, nil
	}
	if w.bundle != "" {
		value := strings.TrimPrefix(w.bundle, "=")
		w.bundle = ""
		return &found{entry: e, value: value, given: true}, nil
	}
	return w.value(e)
}

// value takes the next word as the value of an option.
func (w *words) value(e *entry) (*found, error) {
	last := w.next == len(w.args)
	if e.argument == optional && (last || strings.HasPrefix(w.args[w.next], "-")) {
		return &found{entry: e}, nil
	}
	if last {
		return nil, w.bad("missing argument")
	}
	w.next++
	return &found{entry: e, value: w.args[w.next-1], given: true}, nil
}

// word returns the last word taken, which is how libpopt names an option.
func (w *words) word() string { return w.args[w.next-1] }

// bad is an error that libpopt finds. A restore goes on after it.
func (w *words) bad(what string) error {
	return &Error{Message: w.word() + ": " + what, Exit: ExitRunTime}
}
