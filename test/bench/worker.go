// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// worker is a CPU that sends packets: a thread that stays on it, with a generator of
// its own.
type worker struct {
	cpu  int
	port port
	gen  genObjects
	held []link.Link
	jobs chan func()
}

func newWorker(cpu int, p port) (*worker, error) {
	w := &worker{cpu: cpu, port: p, jobs: make(chan func())}
	if err := loadGenObjects(&w.gen, nil); err != nil {
		return nil, fmt.Errorf("load the generator: %w", err)
	}
	if err := w.hold(); err != nil {
		return nil, fmt.Errorf("attach the generator: %w", err)
	}
	ready := make(chan error)
	go w.work(ready)
	return w, <-ready
}

// hold attaches the generators to interfaces that are down, so that no packet comes
// in by them. The kernel calls attached programs directly; for another, every
// BPF_PROG_TEST_RUN writes that call anew and takes it out again: 20 ms.
func (w *worker) hold() error {
	near, far, err := newPair(fmt.Sprintf("gen%d-4", w.cpu), fmt.Sprintf("gen%d-6", w.cpu))
	if err != nil {
		return err
	}
	for index, program := range map[int]*ebpf.Program{near.Attrs().Index: w.gen.Gen4, far.Attrs().Index: w.gen.Gen6} {
		l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: index})
		if err != nil {
			return err
		}
		w.held = append(w.held, l)
	}
	return nil
}

func (w *worker) work(ready chan<- error) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(w.cpu)
	err := unix.SchedSetaffinity(0, &set)
	// Before whatever else this machine does: better, but not needed. The kernel
	// leaves the others a twentieth.
	realTime := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if unix.SchedSetAttr(0, &realTime, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	}
	ready <- err
	for job := range w.jobs {
		job()
	}
}

func (w *worker) close() {
	close(w.jobs)
	for _, l := range w.held {
		l.Close()
	}
	w.gen.Close()
}

// span is how many packets to send: before the clock, by the clock, and after it
// while the other CPU may still be at it.
type span struct{ lead, timed, tail uint32 }

func (s span) all() uint32 { return s.lead + s.timed + 1 + s.tail }

// outcome is what a CPU measured.
type outcome struct {
	ns      float64 // of a packet, generator included
	verdict uint32  // of the last packet
	frame   []byte  // the last packet, as it left
	sent    uint64  // packets; more than were wanted if a signal came in between
	err     error
}

// send sends packets of a sequence, from number n on, to a program. It may be called
// by the worker alone: see together.
func (w *worker) send(program *ebpf.Program, t traffic, n uint64, s span) (o outcome) {
	state, frame, err := t.round(w.port, n)
	if err != nil {
		return outcome{err: err}
	}
	state.First, state.Last = uint64(s.lead), uint64(s.lead+s.timed)
	o.err = errors.Join(w.gen.Target.Put(uint32(0), program), w.gen.ThisRound.Set(state))
	if o.err != nil {
		return o
	}
	start := w.gen.Gen4
	if t.six {
		start = w.gen.Gen6
	}
	run := &ebpf.RunOptions{
		Data: frame, DataOut: make([]byte, len(frame)), Repeat: s.all(),
		Context: xdpContext{DataEnd: uint32(len(frame)), Ingress: uint32(w.port.index)},
	}
	if o.verdict, o.err = start.Run(run); o.err != nil {
		return o
	}
	o.frame = run.DataOut
	o.err = w.gen.ThisRound.Get(&state)
	o.sent = state.Sent
	if o.err == nil && o.sent != uint64(s.all()) {
		o.err = errInterrupted // and begun anew
	}
	o.ns = float64(state.EndedNs-state.StartedNs) / float64(s.timed)
	return o
}

// xdpContext is struct xdp_md of linux/bpf.h.
type xdpContext struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }

var errInterrupted = errors.New("a signal interrupted the round")

// together gives each worker its job and waits for all. They begin at the same time.
func together(workers []*worker, job func(i int, w *worker) outcome) outcome {
	outcomes := make([]outcome, len(workers))
	var begin, end sync.WaitGroup
	begin.Add(len(workers))
	for i, w := range workers {
		end.Add(1)
		w.jobs <- func() {
			defer end.Done()
			begin.Done()
			begin.Wait()
			outcomes[i] = job(i, w)
		}
	}
	end.Wait()
	all := outcomes[0]
	for _, o := range outcomes[1:] {
		all.ns += o.ns
		all.err = errors.Join(all.err, o.err)
	}
	all.ns /= float64(len(outcomes))
	return all
}
