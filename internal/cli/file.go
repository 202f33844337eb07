// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/config"
	"lvx/internal/lvs"
)

// source is the file that check, plan and apply take.
type source struct {
	path    string // "-" is standard input
	silence []string
}

// maxFile bounds what is read, above what config takes.
const maxFile = 32 << 20

// command makes the source an argument of the command: FILE, and what of its
// warnings is not shown.
func (s *source) command(e *Env, c *cobra.Command) {
	c.Args = s.argument
	c.ValidArgsFunction = completeFile
	c.Flags().StringSliceVar(&s.silence, "silence", nil, "do not show the warnings with these codes: CODE,…")
	e.complete(c, "silence", completeCode)
}

func (s *source) argument(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("name a file, or - for standard input")
	}
	return firstError(func() error { return cobra.MaximumNArgs(1)(c, args) }, s.checkSilence)
}

// checkSilence refuses what would keep an operator from knowing that a file is
// wrong, and codes that there are not.
func (s *source) checkSilence() error {
	for i, code := range s.silence {
		topic, found := config.FindTopic(strings.ToUpper(code))
		if !found {
			return fmt.Errorf("--silence: there is no code %q", code)
		}
		if topic.Severity == config.Error {
			return fmt.Errorf("--silence: %s is an error, which cannot be silenced", topic.Code)
		}
		s.silence[i] = topic.Code
	}
	return nil
}

// name returns the file's name as diagnostics have it.
func (s *source) name() string {
	if s.path == "-" {
		return "stdin"
	}
	return s.path
}

// maxWhat is how many letters of a path the audit log takes.
const maxWhat = 240

// what returns what an apply of the file is called in the audit log.
func (s *source) what() string {
	if s.path == "-" {
		return "apply from standard input"
	}
	path := s.path
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	letters := []rune(printable(path))
	if len(letters) > maxWhat {
		letters = append([]rune("…"), letters[len(letters)-maxWhat:]...)
	}
	return "apply " + string(letters)
}

// parse reads the file and returns what it says, with all that is wrong with it.
// Without a configuration at least one diagnostic is an error.
func (s *source) parse(e *Env) (*lvs.Configuration, config.Diagnostics, error) {
	text, err := s.read(e.In)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w; write what the director has now with: lvx export -o %s", err, s.path)
	} else if err != nil {
		return nil, nil, err
	}
	wanted, found := config.Parse(s.name(), text)
	return wanted, found.Without(s.silence...), nil
}

func (s *source) read(stdin io.Reader) ([]byte, error) {
	from := stdin
	if s.path != "-" {
		file, err := os.Open(s.path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name(), err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("read %s: it is larger than %d MiB", s.name(), maxFile>>20)
	}
	return text, nil
}

// wanted returns what the file says, and tells what is wrong with it. A file with
// errors is an error.
func (s *source) wanted(e *Env) (lvs.Configuration, error) {
	wanted, found, err := s.parse(e)
	if err != nil {
		return lvs.Configuration{}, err
	}
	if err := e.writeDiagnostics(found); err != nil {
		return lvs.Configuration{}, err
	}
	if len(found.Errors()) > 0 {
		return lvs.Configuration{}, errors.New(s.verdict(found) + ", so nothing was done; explained by: " + pages(found))
	}
	return *wanted, nil
}

// verdict says in one line how many errors and warnings a file has.
func (s *source) verdict(found config.Diagnostics) string {
	var counts []string
	for _, c := range []struct {
		n         int
		one, many string
	}{{len(found.Errors()), "error", "errors"}, {len(found.Warnings()), "warning", "warnings"}} {
		if c.n > 0 {
			counts = append(counts, counted(uint64(c.n), c.one, c.many))
		}
	}
	return s.name() + ": " + strings.Join(counts, ", ")
}

// pages is the command that explains the errors.
func pages(found config.Diagnostics) string {
	return "lvx help " + strings.Join(codes(found.Errors()), " ")
}

// codes returns the codes of the diagnostics, each once; of many the first three.
func codes(all config.Diagnostics) (list []string) {
	for _, d := range all {
		if !slices.Contains(list, d.Code) && len(list) < 3 {
			list = append(list, d.Code)
		}
	}
	return list
}

// writeDiagnostics tells people what is wrong with a file.
func (e *Env) writeDiagnostics(found config.Diagnostics) error {
	return found.Write(e.Err, func(s config.Severity, text string) string {
		if s == config.Error {
			return e.paintErr(red, text)
		}
		return e.paintErr(yellow, text)
	})
}
