// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"lvx/api"
	"lvx/internal/ipvsadm"
	"lvx/internal/lvs"
)

// partChanges bounds the changes of one request of ipvsadm -R: some 10 MiB.
const partChanges = 50_000

// RunIPVSAdmRestore is the program ipvsadm-restore: it clears the table and makes
// the rules of stdin, but for lines that begin with #, all in one change, so that
// a service that stays as it is loses no packet. Like the original it has read all
// of them before it clears. Of its arguments it knows --atomic and --dry-run.
func RunIPVSAdmRestore(env *Env, args []string) int {
	isAtomic, isDryRun := false, false
	for _, arg := range args {
		switch {
		case arg == "--atomic":
			isAtomic = true
		case arg == "--dry-run":
			isDryRun = true
		case strings.HasPrefix(arg, "--"):
			fmt.Fprintf(env.Err, "lvx: ipvsadm-restore has no option %s, only --atomic and --dry-run\n", arg)
			return ipvsadm.ExitUsage
		}
	}
	rules, err := readRules(env.In)
	if err != nil {
		fmt.Fprintf(env.Err, "lvx: read rules: %s\n", err)
		return ipvsadm.ExitRunTime
	}
	a := newIPVSAdm(env)
	defer a.client.Close()
	if !isAtomic && a.unbuilt(rules) {
		fmt.Fprintln(env.Err, nothingChanged)
		return ipvsadm.ExitRunTime
	}
	r := a.newRestore(bytes.NewReader(rules))
	r.part = math.MaxInt
	r.batch.add(0, lvs.Change{Operation: lvs.Clear})
	return r.run(isAtomic, isDryRun)
}

// readRules reads lines and empties those that are comments.
func readRules(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	var rules bytes.Buffer
	for rule := range bytes.Lines(text) {
		if bytes.HasPrefix(rule, []byte("#")) {
			rule = []byte("\n") // so that lines keep their numbers
		}
		rules.Write(rule)
	}
	return rules.Bytes(), nil
}

// unbuilt tells of every rule that this version has not, and whether there is one:
// who restores a table has to know before the old one is gone.
func (a *ipvsAdm) unbuilt(rules []byte) (found bool) {
	for script := ipvsadm.NewScript(bytes.NewReader(rules), a.names); ; {
		_, err := script.Next()
		line := (*ipvsadm.Error)(nil)
		if err != nil && !errors.As(err, &line) {
			return found // the end, or what cannot be read: the restore will tell
		}
		if line != nil && line.Unbuilt {
			a.failLine(failure{line: script.Line(), err: line})
			found = true
		}
	}
}

// nothingChanged is the last word on a restore that was not begun.
const nothingChanged = "lvx: nothing was changed"

// failure is a line of a restore that came to nothing.
type failure struct {
	line      int
	operation lvs.Operation // what was tried; "" if the line is no change
	err       error
}

// unbuilt tells whether lvx, of this version, is to blame.
func (f failure) unbuilt() bool {
	line := (*ipvsadm.Error)(nil)
	return errors.As(f.err, &line) && line.Unbuilt
}

// failLine tells of a line with its number, and returns its exit code.
func (a *ipvsAdm) failLine(f failure) int {
	message, code := explain(f.operation, f.err)
	fmt.Fprintf(a.env.Err, "lvx: line %d: %s\n", f.line, strings.TrimPrefix(message, "lvx: "))
	return code
}

// batch is what was read of a restore and not yet asked for.
type batch struct {
	changes []lvs.Change
	lines   []int     // where each of the changes stands
	failed  []failure // the lines that cannot be asked for
	last    int       // the number of the last line in it
}

func (b *batch) empty() bool { return len(b.changes) == 0 && len(b.failed) == 0 }

func (b *batch) add(line int, c lvs.Change) {
	b.changes, b.lines, b.last = append(b.changes, c), append(b.lines, line), line
}

func (b *batch) fail(line int, err error) {
	b.failed, b.last = append(b.failed, failure{line: line, err: err}), line
}

// failures returns all lines that came to nothing, in their order.
func (b *batch) failures(refused []api.Refused) []failure {
	all := slices.Clone(b.failed)
	for i := range refused {
		at := refused[i].Index
		all = append(all, failure{line: b.lines[at], operation: b.changes[at].Operation, err: &refused[i]})
	}
	slices.SortStableFunc(all, func(x, y failure) int { return cmp.Compare(x.line, y.line) })
	return all
}

// restore is ipvsadm -R: lines that come one after the other, most of them changes.
type restore struct {
	*ipvsAdm
	script  *ipvsadm.Script
	part    int // how many changes one request has at most
	batch   batch
	added   bool // real servers
	code    int  // of the last line
	missing int  // of a rule that this version has not: it is not forgotten for the lines behind it
}

func (a *ipvsAdm) newRestore(rules io.Reader) *restore {
	return &restore{ipvsAdm: a, script: ipvsadm.NewScript(rules, a.names), part: partChanges}
}

// run restores, and returns the exit code.
func (r *restore) run(isAtomic, isDryRun bool) int {
	if err := r.reach(context.Background()); err != nil {
		return r.fail("", err)
	}
	switch {
	case isAtomic:
		return r.allOrNothing(isDryRun)
	case isDryRun:
		return r.rehearse()
	}
	return r.lineByLine()
}

// lineByLine makes what can be made, as ipvsadm does: what is refused is told and
// passed over, and a line that cannot be understood ends it. That the changes are
// asked for together can be seen nowhere: before a line that prints they are made.
func (r *restore) lineByLine() int {
	for {
		command, err := r.script.Next()
		isChange := err == nil && command.Action == ipvsadm.Change
		switch {
		case err != nil && !ends(err):
			r.batch.fail(r.script.Line(), err)
			continue
		case isChange:
			r.batch.add(r.script.Line(), command.Change)
			if len(r.batch.changes) < r.part {
				continue
			}
		}
		if code, ok := r.flush(); !ok {
			return code
		}
		switch {
		case errors.Is(err, io.EOF):
			return r.end()
		case err != nil:
			return r.fail("", err)
		case !isChange && r.show(command):
			return r.code
		}
	}
}

// ends tells whether a restore cannot go on after err.
func ends(err error) bool {
	if line := (*ipvsadm.Error)(nil); errors.As(err, &line) {
		return line.EndsRestore
	}
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) {
		return false
	}
	return err != nil // the daemon or the input is gone, or at its end
}

// flush asks for what was read and tells what came to nothing. If the daemon takes
// none of it, ok is false and code the exit code.
func (r *restore) flush() (code int, ok bool) {
	b := r.batch
	r.batch = batch{}
	if b.empty() {
		return r.code, true
	}
	var applied api.Applied
	var err error
	if len(b.changes) > 0 {
		r.added = r.added || slices.ContainsFunc(b.changes, func(c lvs.Change) bool { return c.Operation == lvs.AddServer })
		applied, err = r.client.Apply(context.Background(), api.Changes{Changes: b.changes, KeepGoing: true})
	}
	r.tell(b, applied.Refused)
	if err == nil {
		return r.code, true
	}
	code = r.fail("", err)
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) && len(b.changes) > 1 {
		fmt.Fprintf(r.env.Err, "lvx: none of the lines %d to %d was made\n", max(b.lines[0], 1), b.last)
	}
	return code, false
}

// tell reports the lines of a batch that came to nothing.
func (r *restore) tell(b batch, refused []api.Refused) {
	r.code = ExitDone
	for _, f := range b.failures(refused) {
		var code int
		if f.unbuilt() {
			code = r.failLine(f)
			r.missing = code
		} else {
			code = r.fail(f.operation, f.err)
		}
		if f.line == b.last {
			r.code = code
		}
	}
}

// show carries out a line that prints something. It tells whether the restore ends
// with it.
func (r *restore) show(c *ipvsadm.Command) (end bool) {
	err := r.ipvsAdm.run(c)
	r.code = r.fail("", err)
	return ends(err) || err == nil && (c.Action == ipvsadm.Help || c.Action == ipvsadm.ShowVersion)
}

// end tells of real servers that cannot be reached, once all had time to answer,
// and returns the exit code.
func (r *restore) end() int {
	if r.added {
		applied, err := r.client.Apply(context.Background(), api.Changes{Wait: lvs.Duration(resolveWait)})
		if err != nil {
			return r.fail("", err)
		}
		r.warn(applied.Warnings)
	}
	return max(r.code, r.missing)
}

// collect reads the lines up to the end, or to one that ends a restore unless it is
// to go on; all have to be changes.
func (r *restore) collect(goOn bool) {
	for {
		command, err := r.script.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil && command.Action == ipvsadm.Change {
			r.batch.add(r.script.Line(), command.Change)
			continue
		}
		if err == nil {
			err = &ipvsadm.Error{Message: "lvx: with --atomic or --dry-run a line can only be a change", Exit: ipvsadm.ExitUsage}
		}
		r.batch.fail(r.script.Line(), err)
		line := (*ipvsadm.Error)(nil)
		if isLine := errors.As(err, &line); !isLine || line.EndsRestore && !goOn {
			return
		}
	}
}

// rehearsal asks what the changes would do, and which of them would be refused.
func (r *restore) rehearsal() (api.Applied, error) {
	if len(r.batch.changes) == 0 {
		return api.Applied{Plan: &lvs.Plan{}}, nil
	}
	return r.client.Apply(context.Background(), api.Changes{Changes: r.batch.changes, KeepGoing: true, DryRun: true})
}

// rehearse tells what lineByLine would do.
func (r *restore) rehearse() int {
	r.collect(false)
	applied, err := r.rehearsal()
	r.tell(r.batch, applied.Refused)
	if err == nil {
		err = r.printPlan(applied)
	}
	if err != nil {
		return r.fail("", err)
	}
	return max(r.code, r.missing)
}

// allOrNothing makes all changes in one, or tells of every line that is in the way,
// or what it would do.
func (r *restore) allOrNothing(isDryRun bool) int {
	r.collect(true)
	if r.batch.empty() && !isDryRun {
		return ExitDone
	}
	var refusal error
	if len(r.batch.failed) == 0 && !isDryRun {
		applied, err := r.client.Apply(context.Background(), api.Changes{Changes: r.batch.changes, Wait: lvs.Duration(resolveWait)})
		if ends(err) || err == nil {
			r.warn(applied.Warnings)
			return r.fail("", err)
		}
		refusal = err // of the first line that is refused: there may be others
	}
	applied, err := r.rehearsal()
	failures := r.batch.failures(applied.Refused)
	if err == nil && len(failures) == 0 {
		if refusal == nil {
			return r.fail("", r.printPlan(applied))
		}
		err = refusal
	}
	return r.reject(failures, err)
}

// reject tells why nothing was changed, and returns the exit code.
func (r *restore) reject(failures []failure, err error) int {
	code := r.fail("", err)
	for _, f := range failures {
		r.failLine(f)
		if line := (*ipvsadm.Error)(nil); errors.As(f.err, &line) && !line.Unbuilt {
			code = ipvsadm.ExitUsage
		} else if code == ExitDone {
			code = ipvsadm.ExitRunTime
		}
	}
	fmt.Fprintln(r.env.Err, nothingChanged)
	return code
}
