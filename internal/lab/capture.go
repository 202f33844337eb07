// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// snapBytes of each frame are kept: all headers and the first line of a request.
const snapBytes = 256

// Capture records the frames at all ports of the switch, in both directions.
// It sees what native XDP sends too, since the switch itself runs none that
// takes frames away.
type Capture struct {
	file  *os.File
	ports map[int]string // by interface index in the switch
	// One socket hears all ports, so that the order of frames is the order in
	// which they passed.
	mu     sync.Mutex // guards frames until done is closed
	frames []Frame
	snap   int           // bytes kept of each frame
	see    func(Frame)   // takes the frames instead, if it is set
	came   chan struct{} // has an element if frames came since it was last empty
	done   chan struct{}
}

// Capture starts to record at the ports of the switch. Stop has to be called.
func (l *Lab) Capture() (*Capture, error) { return l.capture(snapBytes, nil) }

// Watch gives every frame, whole, to see, in the order in which they pass, and
// keeps none: Stop returns none. Its data is see's only during the call. Stop
// has to be called.
func (l *Lab) Watch(see func(Frame)) (*Capture, error) { return l.capture(1<<16, see) }

func (l *Lab) capture(snap int, see func(Frame)) (*Capture, error) {
	h := l.Host(Switch)
	if h == nil {
		return nil, errors.New("capture: this lab has no switch")
	}
	c := &Capture{ports: map[int]string{}, snap: snap, see: see, came: make(chan struct{}, 1), done: make(chan struct{})}
	if err := h.Do(func() error { return c.open(h) }); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	go c.read()
	return c, nil
}

func (c *Capture) open(h *Host) error {
	for _, i := range h.Interfaces {
		found, err := net.InterfaceByName(i.Name)
		if err != nil {
			return err
		}
		c.ports[found.Index] = i.Name
	}
	all := int(unix.ETH_P_ALL&0xff)<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	c.file = os.NewFile(uintptr(fd), "capture")
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
	} {
		if err != nil {
			return errors.Join(err, c.file.Close())
		}
	}
	return nil
}

// read records until Stop, and then what has come in before.
func (c *Capture) read() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	for err == nil {
		err = raw.Read(func(fd uintptr) bool { return c.readAll(int(fd)) })
	}
	_ = raw.Control(func(fd uintptr) { c.readAll(int(fd)) }) // fails only once closed, which Stop does later
}

// readAll records what is there. It returns false, "call me again", always.
func (c *Capture) readAll(fd int) bool {
	data, control := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, controlLen, _, from, err := unix.Recvmsg(fd, data, control, unix.MSG_TRUNC)
		if err != nil {
			return false
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		port, known := "", false
		if ok {
			port, known = c.ports[link.Ifindex]
		}
		if !known {
			continue // lo, or the bridge itself, which repeats what a port saw
		}
		f := Frame{
			Time:   timestamp(control[:controlLen]),
			Port:   port,
			ToHost: link.Pkttype == unix.PACKET_OUTGOING,
			Length: n,
			Data:   data[:min(n, len(data), c.snap)],
		}
		if c.see != nil {
			c.see(f)
			continue
		}
		f.Data = slices.Clone(f.Data)
		c.keep(f)
	}
}

// keep records a frame and tells so whoever waits for one.
func (c *Capture) keep(f Frame) {
	c.mu.Lock()
	c.frames = append(c.frames, f)
	c.mu.Unlock()
	select {
	case c.came <- struct{}{}:
	default: // it is told already
	}
}

// timestamp reads the kernel's time of arrival.
func timestamp(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Time{}
}

// Stop ends the recording and returns the frames in the order in which they
// passed. It is an error if frames were lost for want of room.
func (c *Capture) Stop() ([]Frame, error) {
	defer c.file.Close()
	if err := c.file.SetReadDeadline(time.Now()); err != nil {
		return nil, fmt.Errorf("capture: stop: %w", err)
	}
	<-c.done
	var lost uint32
	raw, err := c.file.SyscallConn()
	if err != nil {
		return c.frames, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var stats *unix.TpacketStats
		if stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = stats.Drops
		}
	})
	if err = errors.Join(controlErr, err); err == nil && lost > 0 {
		err = fmt.Errorf("capture: %d frames were lost", lost)
	}
	return c.frames, err
}

// WritePCAP writes frames as a capture file that tcpdump and Wireshark read,
// with nanoseconds. The port is not in it.
func WritePCAP(w io.Writer, frames []Frame) error {
	const nanosecondMagic, ethernet = 0xa1b23c4d, 1
	b := binary.LittleEndian.AppendUint32(nil, nanosecondMagic)
	b = binary.LittleEndian.AppendUint16(b, 2) // version 2.4
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // no time zone
	b = binary.LittleEndian.AppendUint32(b, 1<<16)
	b = binary.LittleEndian.AppendUint32(b, ethernet)
	for _, f := range frames {
		for _, v := range []int{int(f.Time.Unix()), f.Time.Nanosecond(), len(f.Data), f.Length} {
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		}
		b = append(b, f.Data...)
	}
	_, err := w.Write(b)
	return err
}
