// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// AdminGroup is the group whose members may change things, and the organizational
// unit (OU) of the certificates that may. Whoever can open the unix socket at all
// may read, so the group's members have to be in group Group as well.
const AdminGroup = "lvx-admin"

// Peer is who is at the other end: of a unix socket, the process that connected,
// as the kernel knew it then; over TCP, the holder of a certificate.
type Peer struct {
	UID, GID uint32
	PID      int32
	Known    bool // false where nobody vouches for the peer: it may do nothing
	// Certificate is the client's, verified, over TCP; nil on a unix socket.
	Certificate *x509.Certificate
	Address     string // over TCP
}

// String says who it is for the audit log, for instance "root (uid 0, pid 4711)"
// or "certificate alice (192.0.2.7:40000)".
func (p Peer) String() string {
	switch {
	case !p.Known:
		return "unknown"
	case p.Certificate != nil:
		return fmt.Sprintf("certificate %s (%s)", printable(p.Certificate.Subject.CommonName), p.Address)
	}
	name := "unknown"
	if known, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10)); err == nil {
		name = known.Username
	}
	return fmt.Sprintf("%s (uid %d, pid %d)", name, p.UID, p.PID)
}

// printable returns the text, quoted if it has what a terminal would obey.
func printable(text string) string {
	for _, r := range text {
		if !strconv.IsPrint(r) {
			return strconv.Quote(text)
		}
	}
	return text
}

// MayWrite tells whether the peer is root, is in the group AdminGroup, or has a
// certificate of that unit. The group is looked up each time, so that a new member
// needs no restart.
func MayWrite(p Peer) bool {
	switch {
	case !p.Known:
		return false
	case p.Certificate != nil:
		return slices.Contains(p.Certificate.Subject.OrganizationalUnit, AdminGroup)
	case p.UID == 0:
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

// withPeer notes who is at the other end of a unix socket; it is an http.Server's
// ConnContext. Over TCP it is too early: the request will know.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	peer, err := readPeer(c)
	if err != nil {
		return ctx // unknown
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

func peerOf(r *http.Request) Peer {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return Peer{Known: true, Certificate: r.TLS.PeerCertificates[0], Address: r.RemoteAddr}
	}
	peer, _ := r.Context().Value(peerKey{}).(Peer)
	return peer
}

func readPeer(c net.Conn) (Peer, error) {
	if one, is := c.(*counted); is {
		c = one.Conn
	}
	socket, ok := c.(*net.UnixConn)
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
