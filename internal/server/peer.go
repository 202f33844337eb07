// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// AdminGroup is the group whose members may change things. Whoever can open the
// socket at all may read, so its members have to be in group Group as well.
const AdminGroup = "lvx-admin"

// Peer is the process at the other end of a unix socket, as the kernel knew it
// when it connected.
type Peer struct {
	UID, GID uint32
	PID      int32
	Known    bool // false where the kernel does not say, as over TCP
}

// MayWrite tells whether the peer is root or in the group AdminGroup. The
// group is looked up each time, so that a new member needs no restart.
func MayWrite(p Peer) bool {
	if !p.Known {
		return false
	}
	if p.UID == 0 {
		return true
	}
	group, err := user.LookupGroup(AdminGroup)
	if err != nil {
		return false // there is no such group: root alone
	}
	if group.Gid == strconv.FormatUint(uint64(p.GID), 10) {
		return true
	}
	member, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10))
	if err != nil {
		return false
	}
	groups, err := member.GroupIds()
	return err == nil && slices.Contains(groups, group.Gid)
}

type peerKey struct{}

// withPeer notes who is at the other end; it is an http.Server's ConnContext.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	peer, err := readPeer(c)
	if err != nil {
		return ctx // unknown: may not write
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

func peerOf(ctx context.Context) Peer {
	peer, _ := ctx.Value(peerKey{}).(Peer)
	return peer
}

func readPeer(c net.Conn) (Peer, error) {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return Peer{}, fmt.Errorf("a %T has no credentials", c)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("reach the socket: %w", err)
	}
	var credentials *unix.Ucred
	if control := raw.Control(func(fd uintptr) {
		credentials, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); control != nil {
		err = control
	}
	if err != nil {
		return Peer{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	return Peer{UID: credentials.Uid, GID: credentials.Gid, PID: credentials.Pid, Known: true}, nil
}
